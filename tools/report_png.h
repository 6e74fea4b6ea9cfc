/* report_png.h: draws the validation loss as a picture of 1200 x 700 pixels, for example for a README.

   png_write(path, runs, count, floor)   draws the curves and, where several runs were measured at the same steps, a
                                         second plot below with the differences to the first run

   png_write_plot(path, plot, facts)     draws one plot, with the text `facts` at its top right

   Lines are drawn here: the colour of a pixel depends on its distance from the middle of the line, which makes smooth
   edges. Letters come from the first common sans-serif font that is installed, through stb_truetype, or from
   stb_easy_font where there is none. stb_image_write writes the file. All of these are in the package libstb-dev; in a
   program that was built without it png_write ends with an error that says what to install. */
#ifndef TOOLS_REPORT_PNG_H
#define TOOLS_REPORT_PNG_H

#include "report_plot.h"

#if defined(__has_include)
#if __has_include(<stb/stb_image_write.h>) && __has_include(<stb/stb_truetype.h>)
#define REPORT_HAS_STB 1
#endif
#endif

#ifndef REPORT_HAS_STB

__attribute__((noreturn)) static inline void png_refuse(const char *path) {
    die("cannot write '%s': this program was built without stb; install libstb-dev (scripts/deps.sh does) "
        "and build it again",
        path);
}

static inline void png_write(const char *path, const Run *runs, int count, double floor) {
    (void)runs, (void)count, (void)floor;
    png_refuse(path);
}

static inline void png_write_plot(const char *path, const Plot *plot, const char *facts) {
    (void)plot, (void)facts;
    png_refuse(path);
}

#else

/* stb's headers cause warnings that our own code must not have */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wcast-qual"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb/stb_image_write.h>
#define STB_TRUETYPE_IMPLEMENTATION
#define STBTT_STATIC
#include <stb/stb_truetype.h>
#include <stb/stb_easy_font.h>
#pragma GCC diagnostic pop

enum { PNG_WIDTH = 1200, PNG_HEIGHT = 700, PNG_POINTS = 1000 };

typedef struct {
    float r, g, b;
} Color;

#define PNG_COLOR(hex)                                                                                       \
    ((Color){((hex) >> 16 & 255) / 255.0f, ((hex) >> 8 & 255) / 255.0f, ((hex)&255) / 255.0f})

static const unsigned png_colors[] = {0x2563eb, 0xe0590b, 0x0f9d6b, 0x8b3fd9,
                                      0xd12f83, 0x0a8fb0, 0xa97f00, 0x64707f};
enum { PNG_COLORS = sizeof png_colors / sizeof *png_colors };
#define PNG_INK PNG_COLOR(0x1d1f24u)
#define PNG_SOFT PNG_COLOR(0x6a6f7bu)
#define PNG_LINE PNG_COLOR(0xe7e7e2u)
#define PNG_EDGE PNG_COLOR(0xb9bab6u)

typedef struct {
    stbtt_fontinfo info;
    unsigned char *data; /* the font's file; NULL: none was found, stb_easy_font is used */
} Font;

typedef struct {
    Color *pixels; /* (PNG_HEIGHT, PNG_WIDTH) */
    float
        *coverage; /* (PNG_HEIGHT, PNG_WIDTH): which part of each pixel the line that is being drawn covers */
    Font regular, bold;
} Picture;

typedef struct {
    double left, top, right, bottom;
} Box;

/* ---- shapes ---- */

/* Mixes a colour into a pixel: alpha 0 leaves it as it is, 1 replaces it. */
static inline void picture_blend(Picture *g, int x, int y, Color c, double alpha) {
    if (x < 0 || y < 0 || x >= PNG_WIDTH || y >= PNG_HEIGHT || !(alpha > 0)) return;
    Color *p = &g->pixels[y * PNG_WIDTH + x];
    float a = alpha < 1 ? (float)alpha : 1;
    *p = (Color){p->r + a * (c.r - p->r), p->g + a * (c.g - p->g), p->b + a * (c.b - p->b)};
}

/* A rectangle. Its edges may lie inside of pixels; such a pixel is mixed by the part of it that lies in the rectangle.
   */
static inline void picture_box(Picture *g, Box b, Color c) {
    for (int y = (int)b.top; y < b.bottom; y++)
        for (int x = (int)b.left; x < b.right; x++) {
            double w = fmin(x + 1, b.right) - fmax(x, b.left), h = fmin(y + 1, b.bottom) - fmax(y, b.top);
            picture_blend(g, x, y, c, w * h);
        }
}

/* Adds a straight piece of a line, with round ends, to g->coverage. Where two pieces meet the larger coverage counts,
   so that a line drawn in pieces looks like one. */
static inline void picture_segment(Picture *g, double x0, double y0, double x1, double y1, double width) {
    double radius = width / 2, dx = x1 - x0, dy = y1 - y0, length2 = dx * dx + dy * dy;
    int top = (int)fmax(0, fmin(y0, y1) - radius - 1), left = (int)fmax(0, fmin(x0, x1) - radius - 1);
    int bottom = (int)fmin(PNG_HEIGHT - 1, fmax(y0, y1) + radius + 1);
    int right = (int)fmin(PNG_WIDTH - 1, fmax(x0, x1) + radius + 1);
    for (int y = top; y <= bottom; y++)
        for (int x = left; x <= right; x++) {
            double px = x + 0.5 - x0, py = y + 0.5 - y0;
            double along = length2 > 0 ? fmax(0, fmin(1, (px * dx + py * dy) / length2)) : 0;
            double distance = hypot(px - along * dx, py - along * dy);
            float covered = (float)fmax(0, fmin(1, radius + 0.5 - distance));
            float *at = &g->coverage[y * PNG_WIDTH + x];
            if (covered > *at) *at = covered;
        }
}

/* Draws the line in g->coverage, as far as it lies inside `clip`, and clears g->coverage. */
static inline void picture_ink(Picture *g, Box clip, Color c) {
    for (int y = (int)clip.top; y < (int)clip.bottom; y++)
        for (int x = (int)clip.left; x < (int)clip.right; x++)
            picture_blend(g, x, y, c, g->coverage[y * PNG_WIDTH + x]);
    memset(g->coverage, 0, sizeof *g->coverage * PNG_WIDTH * PNG_HEIGHT);
}

/* ---- text ---- */

/* False when the file is missing or not a font. */
static inline bool font_load(Font *font, const char *path) {
    char error[FILE_ERROR_SIZE];
    size_t size;
    unsigned char *data = (unsigned char *)file_read(path, FILE_REGULAR, 16 << 20, &size, error);
    if (!data) return false;
    if (size > 1024 && stbtt_InitFont(&font->info, data, stbtt_GetFontOffsetForIndex(data, 0)))
        font->data = data;
    else
        free(data);
    return font->data != NULL;
}

/* Loads the first of the usual fonts that is installed. */
static inline void font_find(Font *font, bool bold) {
    static const char *const folders[] = {"/usr/share/fonts/truetype/liberation",
                                          "/usr/share/fonts/truetype/noto",
                                          "/usr/share/fonts/truetype/dejavu",
                                          "/usr/share/fonts/liberation-sans",
                                          "/usr/share/fonts/dejavu-sans-fonts",
                                          "/usr/share/fonts/liberation",
                                          "/usr/share/fonts/dejavu",
                                          "/usr/share/fonts/TTF",
                                          "/usr/share/fonts/noto",
                                          "/usr/local/share/fonts",
                                          "/System/Library/Fonts/Supplemental"};
    static const char *const names[][2] = {{"LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf"},
                                           {"NotoSans-Regular.ttf", "NotoSans-Bold.ttf"},
                                           {"DejaVuSans.ttf", "DejaVuSans-Bold.ttf"},
                                           {"Arial.ttf", "Arial Bold.ttf"}};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        for (size_t j = 0; j < sizeof names / sizeof *names; j++) {
            char path[256];
            snprintf(path, sizeof path, "%s/%s", folders[i], names[j][bold]);
            if (font_load(font, path)) return;
        }
}

/* The next character of UTF-8 text, after which *text points; '?' for bytes that are not UTF-8. */
static inline int text_next(const char **text) {
    uint32_t code = '?';
    const size_t length = check_character(*text, strnlen(*text, 4), &code);
    *text += length ? length : 1;
    return length ? (int)code : '?';
}

/* Draws one letter, with its left end at x, on the baseline y. */
static inline void picture_glyph(Picture *g, const Font *font, int glyph, double x, double y, float scale,
                                 Color c) {
    int width = 0, height = 0, left = 0, top = 0;
    float shift = (float)(x - floor(x));
    unsigned char *bitmap = stbtt_GetGlyphBitmapSubpixel(&font->info, scale, scale, shift, 0, glyph, &width,
                                                         &height, &left, &top);
    for (int j = 0; bitmap && j < height; j++)
        for (int i = 0; i < width; i++)
            picture_blend(g, (int)floor(x) + left + i, (int)lrint(y) + top + j, c,
                          bitmap[j * width + i] / 255.0);
    stbtt_FreeBitmap(bitmap, NULL);
}

/* Draws text in a font; with g NULL nothing is drawn. Returns its width. */
static inline double font_text(Picture *g, const Font *font, double x, double y, double size, Color c,
                               const char *text) {
    float scale = stbtt_ScaleForMappingEmToPixels(&font->info, (float)size);
    double start = x;
    int before = 0;
    while (*text) {
        int glyph = stbtt_FindGlyphIndex(&font->info, text_next(&text)), advance, bearing;
        if (before) x += scale * (float)stbtt_GetGlyphKernAdvance(&font->info, before, glyph);
        if (g) picture_glyph(g, font, glyph, x, y, scale, c);
        stbtt_GetGlyphHMetrics(&font->info, glyph, &advance, &bearing);
        x += scale * (float)advance;
        before = glyph;
    }
    return x - start;
}

/* The same with stb_easy_font, a small font of rectangles, for a machine without fonts. */
static inline double easy_text(Picture *g, double x, double y, double size, Color c, const char *text) {
    static struct {
        float x, y, z;
        unsigned char color[4];
    } corners[4 * 4096];
    char plain[128];
    size_t n = 0;
    while (*text && n + 1 < sizeof plain) {
        int code = text_next(&text);
        plain[n++] = code == 0x2212 ? '-' : code >= 32 && code < 127 ? (char)code : '?';
    }
    plain[n] = 0;
    double scale = size / 10.0;
    if (g) {
        int quads = stb_easy_font_print(0, 0, plain, NULL, corners, sizeof corners);
        for (int q = 0; q < quads; q++)
            picture_box(g,
                        (Box){x + scale * corners[4 * q].x, y + scale * (corners[4 * q].y - 7),
                              x + scale * corners[4 * q + 2].x, y + scale * (corners[4 * q + 2].y - 7)},
                        c);
    }
    return scale * stb_easy_font_width(plain);
}

/* The same with whichever of the two there is. */
static inline double text_draw(Picture *g, const Font *font, double x, double y, double size, Color c,
                               const char *text) {
    return font->data ? font_text(g, font, x, y, size, c, text) : easy_text(g, x, y, size, c, text);
}

/* Draws text on the baseline y. x is its left end (anchor 0), its middle (0.5) or its right end (1). Returns its width.
   */
static inline double picture_text(Picture *g, bool bold, double x, double y, double size, double anchor,
                                  Color c, const char *text) {
    const Font *font = bold ? &g->bold : &g->regular;
    double width = text_draw(NULL, font, 0, 0, size, c, text);
    text_draw(g, font, x - anchor * width, y, size, c, text);
    return width;
}

/* ---- the plot ---- */

/* The place of a step or a value inside the box of a plot. */
static inline double box_x(const Plot *p, Box b, double place_step, int run) {
    return b.left + axis_place(&p->x, place_step * p->x_scale[run]) * (b.right - b.left);
}

static inline double box_y(const Plot *p, Box b, double y) {
    return b.bottom - fmax(-1, fmin(2, axis_place(&p->y, y))) * (b.bottom - b.top);
}

/* The grid, the axes and their numbers; those of x only with x_labels. */
static inline void png_axes(Picture *g, const Plot *p, Box b, bool x_labels) {
    char text[FORMAT_SIZE];
    for (int i = 0; i < p->y.tick_count; i++) {
        double y = floor(box_y(p, b, p->y.ticks[i]));
        bool zero = p->kind == PLOT_DIFFERENCE && p->y.ticks[i] == 0;
        picture_box(g, (Box){b.left, y, b.right, y + 1}, zero ? PNG_EDGE : PNG_LINE);
        picture_text(g, false, b.left - 12, y + 5.5, 16, 1, PNG_SOFT, axis_label(&p->y, p->y.ticks[i], text));
    }
    picture_box(g, (Box){b.left, b.bottom, b.right, b.bottom + 1}, PNG_EDGE);
    for (int i = 0; i < p->x.tick_count; i++) {
        double x = floor(b.left + axis_place(&p->x, p->x.ticks[i]) * (b.right - b.left));
        picture_box(g, (Box){x, b.bottom, x + 1, b.bottom + 6}, PNG_EDGE);
        if (x_labels)
            picture_text(g, false, x, b.bottom + 25, 16, 0.5, PNG_SOFT,
                         axis_label(&p->x, p->x.ticks[i], text));
    }
    if (x_labels) picture_text(g, false, b.right + 40, b.bottom + 25, 16, 0, PNG_SOFT, plot_x_title(p));
}

/* The area of a band: each column of pixels from the lower to the higher end, between its points on straight lines. */
static inline void png_band(Picture *g, const Plot *p, Box b, int run) {
    Series low = series_bin(&p->low[run], PNG_POINTS, BIN_MEAN),
           high = series_bin(&p->high[run], PNG_POINTS, BIN_MEAN);
    for (int64_t i = 1; i < low.count; i++) {
        if (!isfinite(low.y[i]) || !isfinite(low.y[i - 1])) continue;
        const double x0 = box_x(p, b, low.x[i - 1], run), x1 = box_x(p, b, low.x[i], run);
        for (int x = (int)ceil(x0); x < x1; x++) {
            const double part = (x - x0) / (x1 - x0);
            const double top = box_y(p, b, high.y[i - 1] + part * (high.y[i] - high.y[i - 1]));
            const double bottom = box_y(p, b, low.y[i - 1] + part * (low.y[i] - low.y[i - 1]));
            for (int y = (int)fmax(b.top, floor(top)); y < fmin(b.bottom, bottom); y++) {
                const double covered = fmin(y + 1, bottom) - fmax(y, top);
                picture_blend(g, x, y, PNG_COLOR(png_colors[run % PNG_COLORS]), 0.2 * covered);
            }
        }
    }
    series_free(&low), series_free(&high);
}

static inline void png_curve(Picture *g, const Plot *p, Box b, int run) {
    Series s = series_bin(&p->curves[run], PNG_POINTS, BIN_MEAN);
    for (int64_t i = 0; i < s.count; i++) {
        if (!isfinite(s.y[i])) continue;
        double x = box_x(p, b, s.x[i], run), y = box_y(p, b, s.y[i]);
        if (i > 0 && isfinite(s.y[i - 1]))
            picture_segment(g, box_x(p, b, s.x[i - 1], run), box_y(p, b, s.y[i - 1]), x, y, 3);
        if (s.count <= 64 && !p->points) picture_segment(g, x, y, x, y, 9);
    }
    for (int64_t i = 0; p->points && i < p->points[run].count; i++) {
        double x = box_x(p, b, p->points[run].x[i], run), y = box_y(p, b, p->points[run].y[i]);
        picture_segment(g, x, y, x, y, 10);
    }
    Box clip = {b.left - 6, b.top, b.right + 6, b.bottom + 6};
    picture_ink(g, clip, PNG_COLOR(png_colors[run % PNG_COLORS]));
    series_free(&s);
}

static inline void png_floor(Picture *g, const Plot *p, Box b) {
    double y = box_y(p, b, p->floor);
    for (double x = b.left; x < b.right; x += 9) picture_segment(g, x, y, x + 2, y, 2);
    picture_ink(g, b, PNG_SOFT);
}

static inline void png_cross(Picture *g, double x, double y, double half) {
    picture_segment(g, x - half, y - half, x + half, y + half, 2.5);
    picture_segment(g, x - half, y + half, x + half, y - half, 2.5);
    picture_ink(g, (Box){x - half - 2, y - half - 2, x + half + 3, y + half + 3}, PNG_INK);
}

/* A cross for each mark. What the crosses are stands in the upper right corner, which a falling loss leaves free. */
static inline void png_marks(Picture *g, const Plot *p, Box b) {
    for (int i = 0; i < plot_marks(p); i++) {
        const Mark *mark = &report_marks.at[i];
        const double y = b.top + 14 + 23 * i;
        char text[FORMAT_SIZE + 128];
        png_cross(g, b.left + axis_place(&p->x, plot_mark_x(p, mark)) * (b.right - b.left),
                  box_y(p, b, mark->loss), 6);
        snprintf(text, sizeof text, "%.3f %.100s", mark->loss, mark->label);
        const double width = picture_text(g, false, b.right - 8, y, 16, 1, PNG_INK, text);
        png_cross(g, b.right - 8 - width - 13, y - 5.5, 5);
    }
}

/* Whether value and name of every run fit between `left` and the edge of the picture. If not, names stand only in the
   heading. */
static inline bool png_names_fit(Picture *g, const Plot *p, double left) {
    char text[FORMAT_SIZE];
    for (int r = 0; r < p->count; r++) {
        double width = text_draw(NULL, &g->bold, 0, 0, 17, PNG_INK, plot_end_text(p, r, text)) + 8 +
                       text_draw(NULL, &g->regular, 0, 0, 17, PNG_INK, p->runs[r].name);
        if (left + width > PNG_WIDTH - 4) return false;
    }
    return true;
}

/* The last value and, where they fit, the name of each run, at the right end of its curve. */
static inline void png_labels(Picture *g, const Plot *p, Box b) {
    double places[PLOT_RUNS_MAX + 1];
    const double gap = 23 / (b.bottom - b.top);
    int who[PLOT_RUNS_MAX + 1], n = plot_end_places(p, gap, places, who);
    if ((n - 1) * gap > 1) return; /* not enough room for all */
    const bool named = png_names_fit(g, p, b.right + 16);
    for (int i = 0; i < n; i++) {
        char text[FORMAT_SIZE];
        int r = who[i];
        Color c = r == p->count ? PNG_SOFT : PNG_COLOR(png_colors[r % PNG_COLORS]);
        double y = b.bottom - places[i] * (b.bottom - b.top) + 6;
        if (r == p->count)
            snprintf(text, sizeof text, "%.3f", p->floor);
        else
            plot_end_text(p, r, text);
        double width = picture_text(g, true, b.right + 16, y, 17, 0, c, text);
        const char *name = r == p->count ? "entropy" : named ? p->runs[r].name : "";
        picture_text(g, false, b.right + 16 + width + 8, y, 17, 0, c, name);
    }
}

/* The entry of a run in the heading: a line in its colour, its name, and the kind of attention where the name does not
   contain it. Returns its width; with g NULL nothing is drawn. */
static inline double png_key(Picture *g, const Font *font, const Plot *p, int run, double x, double y) {
    char attention[64];
    const char *name = p->runs[run].name, *kind = run_attention(&p->runs[run], attention);
    double width = 36 + text_draw(NULL, font, 0, 0, 17, PNG_INK, name), more = 0;
    if (strcmp(kind, "-") != 0 && !strstr(name, kind))
        more = 7 + text_draw(NULL, font, 0, 0, 17, PNG_SOFT, kind);
    if (g) {
        picture_segment(g, x + 2, y - 6, x + 26, y - 6, 4);
        picture_ink(g, (Box){0, 0, PNG_WIDTH, PNG_HEIGHT}, PNG_COLOR(png_colors[run % PNG_COLORS]));
        text_draw(g, font, x + 36, y, 17, PNG_INK, name);
        if (more > 0) text_draw(g, font, x + width + 7, y, 17, PNG_SOFT, kind);
    }
    return width + more;
}

/* The title, and the entries of the runs in up to four lines. Returns the baseline of the last line. */
static inline double png_heading(Picture *g, const Plot *p, double left) {
    double x = left, y = 78;
    picture_text(g, true, left, 46, 25, 0, PNG_INK, p->title);
    for (int r = 0; r < p->count; r++) {
        const double width = png_key(NULL, &g->regular, p, r, 0, 0);
        if (x > left && x + width > PNG_WIDTH - 28) x = left, y += 24;
        if (y > 78 + 3 * 24) {
            char text[64];
            snprintf(text, sizeof text, "and %d more", p->count - r);
            picture_text(g, false, left, y, 17, 0, PNG_SOFT, text);
            break;
        }
        png_key(g, &g->regular, p, r, x, y);
        x += width + 28;
    }
    return y;
}

/* At the top right: how many parameters the first run has, how many steps the longest, and what a band is. */
static inline void png_facts(Picture *g, const Plot *p, double right) {
    char text[400], number[FORMAT_SIZE], step[FORMAT_SIZE], note[PLOT_NOTE_SIZE];
    double last = 0;
    int n = 0;
    for (int r = 0; r < p->count; r++)
        if (p->curves[r].count) last = fmax(last, p->curves[r].x[p->curves[r].count - 1]);
    text[0] = 0;
    if (isfinite(p->runs[0].parameters))
        n = snprintf(text, sizeof text, "%s parameters, ", count_short(number, p->runs[0].parameters));
    plot_band_note(p, "band", note);
    snprintf(text + n, sizeof text - (size_t)n, "%s step%s%s%s", count_grouped(step, last),
             last == 1 ? "" : "s", *note ? "; " : "", note);
    picture_text(g, false, right, 46, 17, 1, PNG_SOFT, text);
}

/* Axes and curves. */
static inline void png_draw(Picture *g, const Plot *p, Box b, bool x_labels) {
    png_axes(g, p, b, x_labels);
    if (isfinite(p->floor)) png_floor(g, p, b);
    for (int r = p->kind == PLOT_DIFFERENCE; r < p->count; r++) png_band(g, p, b, r);
    for (int r = p->kind == PLOT_DIFFERENCE; r < p->count; r++) png_curve(g, p, b, r);
    png_marks(g, p, b);
}

/* The plot of differences below `above`. Both have the same x axis; its numbers stand below the lower plot. */
static inline void png_difference(Picture *g, const Plot *above, Box b) {
    const Run *runs = above->runs;
    const int count = above->count;
    Plot plot;
    char note[PLOT_NOTE_SIZE];
    const PlotCurves curves = plot_curves(PLOT_DIFFERENCE, runs, count);
    plot_begin(&plot, PLOT_DIFFERENCE, runs, &curves, count, NAN, 8, 3);
    plot.x = above->x;
    double x = b.left, y = b.top - 10;
    if (count == 2) x += picture_text(g, false, x, y, 16, 0, PNG_SOFT, runs[1].name) + 5;
    x += picture_text(g, false, x, y, 16, 0, PNG_SOFT, "minus") + 5;
    x += picture_text(g, false, x, y, 16, 0, PNG_SOFT, runs[0].name) + 5;
    if (*plot_band_note(&plot, "band", note)) {
        picture_text(g, false, x, y, 16, 0, PNG_SOFT, "(");
        x += picture_text(g, false, x + 6, y, 16, 0, PNG_SOFT, note) + 6;
        picture_text(g, false, x, y, 16, 0, PNG_SOFT, ")");
    }
    png_draw(g, &plot, b, true);
    if (count <= 5) png_labels(g, &plot, b); /* there is room for four labels */
    plot_curves_free(curves, count);
}

static inline void png_to_file(void *context, void *data, int size) {
    check_fwrite(data, 1, (size_t)size, (FILE *)context, "the picture");
}

static inline void png_save(const Picture *g, const char *path) {
    unsigned char *bytes = check_calloc(3 * PNG_WIDTH * PNG_HEIGHT);
    for (size_t i = 0; i < PNG_WIDTH * PNG_HEIGHT; i++) {
        const Color c = g->pixels[i];
        const float parts[3] = {c.r, c.g, c.b};
        for (int k = 0; k < 3; k++) bytes[3 * i + (size_t)k] = (unsigned char)lrintf(255 * parts[k]);
    }
    FILE *file = check_fopen(path, "wb", "name a file in a folder that exists: --png=FILE");
    if (!stbi_write_png_to_func(png_to_file, file, PNG_WIDTH, PNG_HEIGHT, 3, bytes, 3 * PNG_WIDTH))
        die("cannot make the picture '%s'", path);
    check_fclose(file, path);
    free(bytes);
}

static inline Picture picture_begin(void) {
    Picture g = {.pixels = check_calloc(sizeof *g.pixels * PNG_WIDTH * PNG_HEIGHT),
                 .coverage = check_calloc(sizeof *g.coverage * PNG_WIDTH * PNG_HEIGHT)};
    for (size_t i = 0; i < PNG_WIDTH * PNG_HEIGHT; i++) g.pixels[i] = (Color){1, 1, 1};
    font_find(&g.regular, false), font_find(&g.bold, true);
    return g;
}

static inline void picture_end(Picture *g, const char *path) {
    png_save(g, path);
    free(g->pixels), free(g->coverage), free(g->regular.data), free(g->bold.data);
}

static inline void png_write(const char *path, const Run *runs, int count, double floor) {
    Picture g = picture_begin();
    Plot plot;
    const PlotCurves curves = plot_curves(PLOT_VALIDATION, runs, count);
    plot_begin(&plot, PLOT_VALIDATION, runs, &curves, count, floor, 8, 6);
    bool strip = false; /* whether to draw differences: only at steps that two runs share */
    const PlotCurves differences = plot_curves(PLOT_DIFFERENCE, runs, count);
    for (int r = 1; r < count; r++) strip = strip || differences.middle[r].count > 1;
    plot_curves_free(differences, count);
    Box box = {84, 0, PNG_WIDTH - 190, strip ? 480 : PNG_HEIGHT - 56};
    box.top = png_heading(&g, &plot, box.left) + 30;
    png_facts(&g, &plot, PNG_WIDTH - 28);
    png_draw(&g, &plot, box, !strip);
    png_labels(&g, &plot, box);
    if (!plot_has_numbers(&plot))
        picture_text(&g, false, (box.left + box.right) / 2, (box.top + box.bottom) / 2, 20, 0.5, PNG_SOFT,
                     "no validation loss in the logs");
    if (strip) png_difference(&g, &plot, (Box){box.left, 544, box.right, PNG_HEIGHT - 56});
    picture_end(&g, path);
    plot_curves_free(curves, count);
}

static inline void png_write_plot(const char *path, const Plot *plot, const char *facts) {
    Picture g = picture_begin();
    Box box = {84, 0, PNG_WIDTH - 190, PNG_HEIGHT - 56};
    box.top = png_heading(&g, plot, box.left) + 30;
    picture_text(&g, false, PNG_WIDTH - 28, 46, 17, 1, PNG_SOFT, facts);
    png_draw(&g, plot, box, true);
    png_labels(&g, plot, box);
    picture_end(&g, path);
}

#endif
#endif
