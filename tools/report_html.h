/* report_html.h: writes the report as one HTML file. Style, drawings (inline SVG) and the script that shows the values
   under the pointer are all in it; it loads no other file, so it can be mailed and opened without a network.

   html_write(path, runs, count, arms, floor, more)   with arms, groups of runs that differ in their seed (report_arms.h),
                                               the page is about them; else `arms` is NULL. `more` writes further sections
                                               below the panels, about the runs or about the first run of each arm

   The curves of a panel are drawn into an SVG of 10000 x 10000 units. It is stretched to the size of the panel, while
   its lines keep their width. Numbers at ticks and labels are HTML beside it, so that their letters are not stretched.
   The values for the script stand in one JSON object: for each panel and run the steps, the values and, where the curve
   is smoothed, the values before smoothing. html_page.h has what this page shares with those
   of other tools. */
#ifndef TOOLS_REPORT_HTML_H
#define TOOLS_REPORT_HTML_H

#include "html_page.h"
#include "report_arms.h"

enum {
    HTML_UNITS = 10000,     /* width and height of a drawing */
    HTML_POINTS = 1000,     /* of a curve, at most */
    HTML_ALL_POINTS = 6000, /* of the curves of all runs in a panel, at most */
    HTML_DOTS = 64,         /* a curve of so many points or fewer gets a dot at each */
    HTML_COLORS = 8,        /* --c0 to --c7 of html_page.h */
    HTML_LABEL = 16,        /* characters of the label at the end of a curve */
    HTML_KEY_MAX = 200      /* bytes of an option's name; longer ones are not shown */
};

static const char *const html_style[] = {
    ".panels{display:grid;grid-template-columns:1fr 1fr;gap:20px;margin-top:20px}",
    ".panels .card{margin:0}.wide,.panels .card:last-child:nth-child(even){grid-column:1/-1}",
    ".best{font-weight:680}.runs td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:12em}",
    ".options td,.options th{text-align:left;white-space:normal;overflow-wrap:anywhere;font-size:13.5px;",
    "padding:5px 14px 5px 0}",
    ".options td:first-child{color:var(--soft);white-space:nowrap}.differs td{background:var(--mark)}",
    ".differs td:first-child{box-shadow:-8px 0 0 var(--mark)}",
    ".key{display:inline-block;width:14px;height:4px;border-radius:2px;margin-right:8px;vertical-align:"
    "middle;",
    "background:var(--c)}",
    ".head{display:flex;flex-wrap:wrap;gap:2px 18px;align-items:baseline}.head .note{margin-left:auto}",
    ".legend{color:var(--soft);font-size:13px}.legend>span{margin-right:14px;display:inline-block}",
    ".plot{position:relative;height:268px;margin:10px 0 0;padding:6px 12px 22px 46px;outline-offset:6px}",
    ".wide .plot{height:380px}.labelled{padding-right:128px}",
    ".area{position:relative;height:100%;cursor:crosshair;touch-action:pan-y}",
    ".area svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible;display:block;",
    "clip-path:inset(0 -6px -6px -6px)}",
    ".area path{fill:none;stroke-width:2;stroke:var(--c);stroke-linejoin:round;stroke-linecap:round;",
    "vector-effect:non-scaling-stroke}",
    ".area .grid{stroke:var(--line);stroke-width:1;stroke-linecap:butt}",
    ".area .base{stroke:var(--edge);stroke-width:1}",
    ".area .floor{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:2 5}",
    ".area .thin{stroke-width:1.2;opacity:.85}.area .faint{stroke-width:1;opacity:.28}.area "
    ".band{fill:var(--c);stroke:none;opacity:.17}",
    ".area .dots{stroke-width:6.5}.area .under{stroke-width:5;opacity:.45}.area .over{stroke-dasharray:7 7}",
    ".area i{position:absolute;font-style:normal;font-size:12px;line-height:1;color:var(--soft);",
    "white-space:nowrap}",
    ".area .y{right:100%;margin-right:9px;transform:translateY(-50%)}",
    ".area .x{top:100%;margin-top:9px;transform:translateX(-50%)}",
    ".area .end{left:100%;margin-left:11px;transform:translateY(-50%);color:var(--c);font-size:13px;",
    "font-weight:600;max-width:112px;overflow:hidden;text-overflow:ellipsis;line-height:1.15}",
    ".area .end span{font-weight:400}.area .soft{--c:var(--soft)}",
    ".area .mark{transform:translate(-50%,-50%);color:var(--ink);font-size:17px;font-weight:600}",
    ".area .marked{right:8px;color:var(--ink)}",
    ".cross{position:absolute;top:0;bottom:0;width:1px;background:var(--soft);opacity:.6;pointer-events:"
    "none}",
    ".spot{position:absolute;width:9px;height:9px;margin:-4.5px;border-radius:50%;background:var(--c);",
    "border:2px solid var(--card);pointer-events:none}",
    ".tip{position:absolute;top:8px;z-index:2;background:var(--card);border:1px solid var(--edge);",
    "border-radius:8px;padding:7px 11px;font-size:13px;line-height:1.45;pointer-events:none;",
    "box-shadow:0 4px 16px #0002}",
    ".tip b{font-weight:600}.tip div{white-space:nowrap;display:flex;align-items:center;gap:8px}",
    ".tip div b{margin-left:auto;padding-left:10px}.tip .raw{color:var(--soft)}",
    "@media(max-width:860px){.panels{grid-template-columns:minmax(0,1fr)}}",
    "@media(max-width:560px){.labelled{padding-right:56px}",
    ".area .end span{display:none}.wide .plot{height:300px}.x.second{display:none}",
    /* on a narrow screen the table of runs shows the figures of a run in two columns below its name */
    ".runs,.runs tbody{display:block}.runs tr:first-child{display:none}",
    ".runs tr{display:grid;grid-template-columns:minmax(0,1fr) "
    "minmax(0,1fr);column-gap:22px;font-size:13.5px}",
    ".runs td{display:flex;justify-content:space-between;gap:8px;padding:1px 0;border:0}",
    ".runs td:first-child{grid-column:1/-1;display:block;font-weight:640;font-size:15px}",
    ".runs td+td::before{content:attr(data-title);color:var(--soft);font-weight:400}",
    ".runs tr+tr+tr{border-top:1px solid var(--line);margin-top:9px;padding-top:7px}}",
};

/* The pointer or the arrow keys choose the nearest step. Every panel marks the curves there; the panel under the
   pointer also shows the values of all runs. */
static const char *const html_script[] = {
    "'use strict';",
    "const data = JSON.parse(document.getElementById('data').textContent);",
    "const panels = [...document.querySelectorAll('.plot')].map(plot => {",
    "  const area = plot.querySelector('.area');",
    "  const own = plot.dataset.own ? JSON.parse(plot.dataset.own) : data.plots[plot.dataset.plot];",
    "  const make = (kind, run) => {",
    "    const e = area.appendChild(document.createElement('div'));",
    "    e.className = kind; e.hidden = true;",
    "    if (run >= 0) e.style.setProperty('--c', 'var(--c' + run % 8 + ')');",
    "    return e;",
    "  };",
    "  const cross = make('cross', -1), spots = own.runs.map((_, r) => make('spot', r));",
    "  return { plot, area, own, cross, spots, tip: make('tip', -1) };",
    "});",
    "function nearest(list, x) {",
    "  let low = 0, high = list.length - 1;",
    "  while (high - low > 1) { const m = low + high >> 1; if (list[m] < x) low = m; else high = m; }",
    "  return high < 0 ? -1 : Math.abs(list[low] - x) <= Math.abs(list[high] - x) ? low : high;",
    "}",
    "function nearestX(own, x) {",
    "  let best = NaN;",
    "  for (const run of own.runs) {",
    "    const i = nearest(run.x, x);",
    "    if (i >= 0 && !(Math.abs(best - x) <= Math.abs(run.x[i] - x))) best = run.x[i];",
    "  }",
    "  return best;",
    "}",
    "const place = (own, y) => own.log ? Math.log(y / own.low) / Math.log(own.high / own.low)",
    "                                  : (y - own.low) / (own.high - own.low);",
    "const across = (own, x) => !own.xlog ? x / own.xhigh",
    "  : Math.log(x / own.xlow) / Math.log(own.xhigh / own.xlow);",
    "const write = (own, y) => y === null ? 'not a number' : own.digits ? y.toFixed(own.digits)",
    "  : Number(y.toPrecision(4)).toString();",
    "function line(tip, run, text, raw) {",
    "  const row = tip.appendChild(document.createElement('div'));",
    "  const key = row.appendChild(document.createElement('span'));",
    "  if (raw) row.className = 'raw';",
    "  key.className = 'key';",
    "  key.style.margin = 0;",
    "  key.style.setProperty('--c', raw ? 'none' : 'var(--c' + run % 8 + ')');",
    "  row.append(raw ? 'raw' : data.names[run]);",
    "  row.appendChild(document.createElement('b')).textContent = text;",
    "}",
    "function mark(p, x, withTip) {",
    "  const own = p.own, at = nearestX(own, x), left = across(own, at);",
    "  p.cross.hidden = p.tip.hidden = !(left >= 0);",
    "  p.cross.style.left = 100 * left + '%';",
    "  p.tip.replaceChildren();",
    "  const head = p.tip.appendChild(document.createElement('b'));",
    "  head.textContent = data.x + ' ' + (at || 0).toLocaleString('en-US');",
    "  own.runs.forEach((run, r) => {",
    "    const i = nearest(run.x, at), y = i < 0 ? null : run.y[i];",
    "    const far = i < 0 || Math.abs(across(own, run.x[i]) - left) > 1 / 40;",
    "    const height = y === null ? NaN : place(own, y);",
    "    p.spots[r].hidden = far || !(height >= 0 && height <= 1);",
    "    p.spots[r].style.left = 100 * (far ? 0 : across(own, run.x[i])) + '%';",
    "    p.spots[r].style.top = 100 * (1 - height) + '%';",
    "    if (far) return;",
    "    line(p.tip, r, write(own, y), false);",
    "    if (run.raw) line(p.tip, -1, write(own, run.raw[i]), true);",
    "  });",
    "  if (!withTip) p.tip.hidden = true;",
    "  const right = left > .55;",
    "  p.tip.style.left = right ? '' : 'calc(' + 100 * left + '% + 14px)';",
    "  p.tip.style.right = right ? 'calc(' + 100 * (1 - left) + '% + 14px)' : '';",
    "}",
    "let now = 0;",
    "function show(p, x) { now = nearestX(p.own, x); panels.forEach(q => mark(q, now, q === p)); }",
    "function hide() {",
    "  for (const p of panels) for (const e of [p.cross, p.tip, ...p.spots]) e.hidden = true;",
    "}",
    "for (const p of panels) {",
    "  const follow = event => {",
    "    const box = p.area.getBoundingClientRect();",
    "    const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)), own = p.own;",
    "    show(p, own.xlog ? own.xlow * Math.pow(own.xhigh / own.xlow, part) : part * own.xhigh);",
    "  };",
    "  p.area.addEventListener('pointermove', follow);",
    "  p.area.addEventListener('pointerdown', follow);",
    "  p.area.addEventListener('pointerleave', hide);",
    "  p.plot.addEventListener('blur', hide);",
    "  p.plot.addEventListener('keydown', event => {",
    "    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];",
    "    if (!way) return;",
    "    event.preventDefault();",
    "    const steps = [...new Set(p.own.runs.flatMap(run => run.x))].sort((a, b) => a - b);",
    "    const i = Math.min(steps.length - 1, Math.max(0, nearest(steps, now) + way));",
    "    show(p, steps[i]);",
    "  });",
    "}",
};

/* ---- numbers ---- */

/* "key":[...], each value times `scale` with so many significant digits; null for a NaN. */
static inline void html_json_numbers(FILE *f, const char *key, const double *values, int64_t count,
                                     double scale, int digits) {
    fprintf(f, "\"%s\":[", key);
    for (int64_t i = 0; i < count; i++) {
        if (i) fputc(',', f);
        if (isfinite(values[i]))
            fprintf(f, "%.*g", digits, values[i] * scale);
        else
            fputs("null", f);
    }
    fputc(']', f);
}

/* ---- curves ---- */

/* The place of a step or a value in a drawing. */
static inline int html_x(const Plot *p, int run, double x) {
    return (int)lrint(axis_place(&p->x, x * p->x_scale[run]) * HTML_UNITS);
}

static inline int html_y(const Plot *p, double y) {
    double place = axis_place(&p->y, y);
    /* a value far outside of the frame is moved to just outside, so that lines to it stay short */
    return (int)lrint((1 - fmax(-2, fmin(3, place))) * HTML_UNITS);
}

/* Whether a value has a place in the drawing. */
static inline bool html_drawable(const Plot *p, double y) {
    return isfinite(y) && (!p->y.logarithmic || y > 0);
}

static inline void html_path_start(FILE *f, const char *kind, int run) {
    fprintf(f, "<path class=\"%s\" style=\"--c:var(--c%d)\" d=\"", kind, run % HTML_COLORS);
}

/* A line through the points of a curve, with gaps where it has NaNs. */
static inline void html_curve(FILE *f, const Plot *p, int run, const Series *s, const char *kind) {
    bool open = false;
    html_path_start(f, kind, run);
    for (int64_t i = 0; i < s->count; i++) {
        bool drawn = html_drawable(p, s->y[i]);
        if (drawn) fprintf(f, "%c%d %d", open ? 'L' : 'M', html_x(p, run, s->x[i]), html_y(p, s->y[i]));
        if (drawn && !open && (i + 1 == s->count || !html_drawable(p, s->y[i + 1])))
            fputs("h0", f); /* a point between two gaps: a line of length 0 is drawn as a dot */
        open = drawn;
    }
    fputs("\"/>\n", f);
}

/* A dot at each point of a curve. */
static inline void html_dots(FILE *f, const Plot *p, int run, const Series *s) {
    html_path_start(f, "dots", run);
    for (int64_t i = 0; i < s->count; i++)
        if (html_drawable(p, s->y[i])) fprintf(f, "M%d %dh0", html_x(p, run, s->x[i]), html_y(p, s->y[i]));
    fputs("\"/>\n", f);
}

/* The area between the lowest and the highest value of each bin. Bins without finite values are left out. */
static inline void html_band(FILE *f, const Plot *p, int run, const Series *low, const Series *high) {
    bool open = false;
    html_path_start(f, "band", run);
    for (int64_t i = 0; i < high->count; i++)
        if (html_drawable(p, high->y[i]))
            fprintf(f, "%c%d %d", open ? 'L' : 'M', html_x(p, run, high->x[i]), html_y(p, high->y[i])),
                open = true;
    for (int64_t i = low->count; i-- > 0;)
        if (html_drawable(p, low->y[i]))
            fprintf(f, "L%d %d", html_x(p, run, low->x[i]), html_y(p, low->y[i]));
    fputs(open ? "Z\"/>\n" : "\"/>\n", f);
}

/* The training loss before smoothing: a faint line, or, of a run with many steps, the area that it covers. */
static inline void html_raw(FILE *f, const Plot *p, int run, int64_t points) {
    const Series *raw = &p->runs[run].curves[CURVE_TRAINING];
    if (raw->count <= points) {
        html_curve(f, p, run, raw, "faint");
        return;
    }
    Series low = series_bin(raw, points, BIN_LOWEST), high = series_bin(raw, points, BIN_HIGHEST);
    html_band(f, p, run, &low, &high);
    series_free(&low), series_free(&high);
}

/* ---- panels ---- */

/* The lines of the ticks, the axis, the zero of a difference and --floor. */
static inline void html_grid(FILE *f, const Plot *p) {
    fputs("<path class=\"grid\" d=\"", f);
    for (int i = 0; i < p->y.tick_count; i++)
        fprintf(f, "M0 %dH%d", (int)lrint((1 - axis_place(&p->y, p->y.ticks[i])) * HTML_UNITS), HTML_UNITS);
    fputs("\"/>\n", f);
    if (p->kind == PLOT_DIFFERENCE)
        fprintf(f, "<path class=\"base\" d=\"M0 %dH%d\"/>\n", html_y(p, 0), HTML_UNITS);
    fprintf(f, "<path class=\"base\" d=\"M0 %dH%d\"/>\n", HTML_UNITS, HTML_UNITS);
    if (isfinite(p->floor))
        fprintf(f, "<path class=\"floor\" d=\"M0 %dH%d\"/>\n", html_y(p, p->floor), HTML_UNITS);
}

/* The numbers at the ticks of both axes. Of many numbers below the plot every second one is marked: a narrow screen has
   no room for it. */
static inline void html_ticks(FILE *f, const Plot *p) {
    char text[FORMAT_SIZE];
    for (int i = 0; i < p->y.tick_count; i++)
        fprintf(f, "<i class=\"y\" style=\"top:%.2f%%\">%s</i>", 100 * (1 - axis_place(&p->y, p->y.ticks[i])),
                axis_label(&p->y, p->y.ticks[i], text));
    for (int i = 0; i < p->x.tick_count; i++)
        fprintf(f, "<i class=\"x%s\" style=\"left:%.2f%%\">%s</i>",
                p->x.tick_count > 6 && i % 2 ? " second" : "", 100 * axis_place(&p->x, p->x.ticks[i]),
                axis_label(&p->x, p->x.ticks[i], text));
    fputc('\n', f);
}

/* The last value and the name of each run at the right end of its curve. `gap` is the height of a label, as a part of
   the panel's height. */
static inline void html_end_labels(FILE *f, const Plot *p, double gap) {
    char text[FORMAT_SIZE];
    double places[PLOT_RUNS_MAX + 1];
    int who[PLOT_RUNS_MAX + 1], n = plot_end_places(p, gap, places, who);
    if ((n - 1) * gap > 1) return; /* not enough room for all; the table has these values */
    const bool named = plot_names_fit(p, HTML_LABEL);
    for (int i = 0; i < n; i++) {
        int r = who[i];
        fprintf(f, "<i class=\"end%s\" style=\"top:%.2f%%", r == p->count ? " soft" : "",
                100 * (1 - places[i]));
        if (r < p->count) fprintf(f, ";--c:var(--c%d)", r % HTML_COLORS);
        if (r == p->count)
            fprintf(f, "\">%.3f <span>entropy", p->floor);
        else
            fprintf(f, "\">%s <span>", plot_end_text(p, r, text)), html_text(f, named ? p->runs[r].name : "");
        fputs("</span></i>\n", f);
    }
}

/* A cross for each mark. What the crosses are stands in the upper right corner, which a falling loss leaves free. */
static inline void html_marks(FILE *f, const Plot *p) {
    for (int i = 0; i < plot_marks(p); i++) {
        const Mark *mark = &report_marks.at[i];
        fprintf(f, "<i class=\"mark\" style=\"left:%.2f%%;top:%.2f%%\">&times;</i>",
                100 * axis_place(&p->x, plot_mark_x(p, mark)), 100 * (1 - axis_place(&p->y, mark->loss)));
        fprintf(f, "<i class=\"marked\" style=\"top:%dpx\">&times; %.3f ", 4 + 17 * i, mark->loss);
        html_text(f, mark->label), fputs("</i>\n", f);
    }
}

/* The remark beside the title of a panel. */
static inline void html_note(FILE *f, const Plot *p) {
    char note[PLOT_NOTE_SIZE];
    fputs("<p class=\"note\">", f);
    if (p->kind == PLOT_TRAINING && p->runs[0].seeds)
        fputs("smoothed", f);
    else if (p->kind == PLOT_TRAINING)
        fputs(p->runs[0].curves[CURVE_TRAINING].count > 60 ? "smoothed; faint: each step" : "each step", f);
    if (p->kind == PLOT_NORM) fputs("before clipping, logarithmic", f);
    if (p->kind == PLOT_FIT) fputs("over parameters, logarithmic; points: means of runs", f);
    if (p->kind == PLOT_DIFFERENCE) {
        if (p->count == 2) html_text(f, p->runs[1].name);
        fputs(p->count == 2 ? " minus " : "minus ", f);
        html_text(f, p->runs[0].name);
        fputs("; below zero is better", f);
    }
    if (p->kind == PLOT_VALIDATION && isfinite(p->floor)) fputs("dotted: exact entropy of the text", f);
    if (isfinite(p->above) && p->kind <= PLOT_TRAINING)
        fprintf(f, "%s from %.2f, above the frame",
                p->kind == PLOT_TRAINING || isfinite(p->floor) ? ";" : "falls", p->above);
    if (*plot_band_note(p, "band", note)) {
        const bool first = p->kind == PLOT_VALIDATION && !isfinite(p->floor) && !isfinite(p->above);
        fprintf(f, "%s%s", first || p->kind == PLOT_RATE ? "" : "; ", note);
    }
    fputs("</p>", f);
}

/* A panel: its heading, its drawing, its labels. `number` is its place in the JSON data. */
static inline void html_panel(FILE *f, const Plot *p, int number, int64_t points) {
    bool wide = p->kind == PLOT_VALIDATION || p->kind == PLOT_FIT,
         labelled = wide || p->kind == PLOT_TRAINING;
    fprintf(f, "<section class=\"card%s\"><div class=\"head\"><h2>%s</h2><div class=\"legend\">",
            wide ? " wide" : "", p->title);
    for (int r = p->kind == PLOT_DIFFERENCE; r < p->count; r++) {
        fprintf(f, "<span><span class=\"key\" style=\"--c:var(--c%d)\"></span>", r % HTML_COLORS);
        html_text(f, p->runs[r].name);
        fputs("</span>", f);
    }
    fputs("</div>", f);
    html_note(f, p);
    fputs("</div>\n", f);
    if (!plot_has_numbers(p)) {
        fputs("<p class=\"note\">no values in the log</p></section>\n", f);
        return;
    }
    fprintf(f,
            "<div class=\"plot%s\" data-plot=\"%d\" tabindex=\"0\"><div class=\"area\">\n"
            "<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"%s\">\n",
            labelled ? " labelled" : "", number, HTML_UNITS, HTML_UNITS, p->title);
    html_grid(f, p);
    for (int r = 0; r < p->count; r++) {
        if (p->kind == PLOT_TRAINING && !p->runs[r].seeds) html_raw(f, p, r, points);
        if (p->low[r].count < 2 || p->kind == PLOT_RATE) continue;
        Series low = series_bin(&p->low[r], points, BIN_MEAN),
               high = series_bin(&p->high[r], points, BIN_MEAN);
        html_band(f, p, r, &low, &high);
        series_free(&low), series_free(&high);
    }
    for (int r = p->kind == PLOT_DIFFERENCE; r < p->count; r++) {
        Series s = series_bin(&p->curves[r], points, BIN_MEAN);
        /* two runs often have the same learning rates: the other curves are dashed, so that the first one shows */
        bool stacked = p->kind == PLOT_RATE && p->count > 1;
        bool noisy = p->kind == PLOT_NORM && s.count > HTML_DOTS;
        html_curve(f, p, r, &s, noisy ? "thin" : !stacked ? "curve" : r == 0 ? "under" : "over");
        bool measured = p->kind == PLOT_VALIDATION || p->kind == PLOT_DIFFERENCE;
        if (s.count == 1 || (measured && s.count <= HTML_DOTS)) html_dots(f, p, r, &s);
        if (p->points) html_dots(f, p, r, &p->points[r]);
        series_free(&s);
    }
    fputs("</svg>\n", f);
    html_ticks(f, p);
    html_marks(f, p);
    if (labelled) html_end_labels(f, p, wide ? 0.055 : 0.08);
    fputs("</div></div></section>\n", f);
}

/* The data of a panel for the script. */
static inline void html_panel_data(FILE *f, const Plot *p, int64_t points) {
    fprintf(f,
            "{\"low\":%.10g,\"high\":%.10g,\"xlow\":%.10g,\"xhigh\":%.10g,\"xlog\":%s,\"log\":%s,\"digits\":%"
            "d,\"runs\":[",
            p->y.low, p->y.high, p->x.low, p->x.high, p->x.logarithmic ? "true" : "false",
            p->y.logarithmic ? "true" : "false", p->kind <= PLOT_DIFFERENCE || p->kind == PLOT_FIT ? 4 : 0);
    for (int r = 0; r < p->count; r++) {
        Series s = series_bin(&p->curves[r], points, BIN_MEAN);
        fprintf(f, "%s{", r ? ",\n" : "");
        html_json_numbers(f, "x", s.x, s.count, p->x_scale[r], 16);
        fputc(',', f);
        html_json_numbers(f, "y", s.y, s.count, 1, 9);
        if (p->kind == PLOT_TRAINING && s.count > 60 && !p->runs[r].seeds) {
            Series raw = series_bin(&p->runs[r].curves[CURVE_TRAINING], points, BIN_MEAN);
            fputc(',', f);
            html_json_numbers(f, "raw", raw.y, raw.count, 1, 9);
            series_free(&raw);
        }
        fputc('}', f);
        series_free(&s);
    }
    fputs("]}", f);
}

/* ---- the table of options ---- */

/* One option of one run. */
typedef struct {
    char *key, *value;
    int run, order; /* order: how many were found before it */
} HtmlValue;

/* A row of the table: an option, with its value in each run. */
typedef struct {
    const char *key;
    const char *values[PLOT_RUNS_MAX]; /* NULL: this run has no such option */
    int order;
} HtmlOption;

typedef struct {
    HtmlValue *found;
    size_t count, room;
    HtmlOption *rows; /* one for each key, in the order in which the keys were first found */
    size_t row_count;
    int too_long; /* how many keys were left out for their length */
} HtmlOptions;

static inline char *html_copy(const char *text) { return strcpy(check_calloc(strlen(text) + 1), text); }

/* Adds one option of one run. */
static inline void html_option_found(HtmlOptions *o, const char *key, int run, const char *value) {
    o->found = check_grow(o->found, &o->room, o->count + 1, sizeof *o->found);
    o->found[o->count] = (HtmlValue){html_copy(key), html_copy(value), run, (int)o->count};
    o->count++;
}

/* Adds all values of a JSON object. In an object inside it names are joined by dots, as in machine.threads; those in
   "options" stay as they are. */
static inline void html_options_of(HtmlOptions *o, const cJSON *object, const char *prefix, int run,
                                   int depth) {
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        char key[HTML_KEY_MAX + 1], number[64];
        const char *name = item->string ? item->string : "";
        if (snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "", name) >= (int)sizeof key) {
            o->too_long++; /* no option has such a name, and a file with many of them would make the page huge */
        } else if (cJSON_IsObject(item) && depth < 4) {
            html_options_of(o, item, strcmp(key, "options") == 0 ? "" : key, run, depth + 1);
        } else if (cJSON_IsString(item)) {
            html_option_found(o, key, run, item->valuestring);
        } else if (cJSON_IsNumber(item)) {
            snprintf(number, sizeof number, "%.10g", item->valuedouble);
            html_option_found(o, key, run, number);
        } else if (cJSON_IsBool(item)) {
            html_option_found(o, key, run, cJSON_IsTrue(item) ? "yes" : "no");
        } else {
            char *text = cJSON_PrintUnformatted(item);
            html_option_found(o, key, run, text ? text : "");
            cJSON_free(text);
        }
    }
}

static inline int html_compare_found(const void *a, const void *b) {
    const HtmlValue *x = a, *y = b;
    const int keys = strcmp(x->key, y->key);
    return keys ? keys : (x->order > y->order) - (x->order < y->order);
}

static inline int html_compare_rows(const void *a, const void *b) {
    const HtmlOption *x = a, *y = b;
    return (x->order > y->order) - (x->order < y->order);
}

/* The options of all runs, one row for each key. Equal keys are brought together by sorting: searching for each would
   take long in a damaged file of very many keys. */
static inline HtmlOptions html_options_gather(const Run *runs, int count) {
    HtmlOptions o = {0};
    for (int r = 0; r < count; r++) html_options_of(&o, runs[r].config, "", r, 0);
    if (o.too_long)
        warn("not shown: %d option%s with a name of more than %d bytes", o.too_long,
             o.too_long == 1 ? "" : "s", HTML_KEY_MAX);
    if (o.count) qsort(o.found, o.count, sizeof *o.found, html_compare_found);
    size_t room = 0;
    for (size_t i = 0; i < o.count; i++) {
        const HtmlValue *v = &o.found[i];
        if (i == 0 || strcmp(v->key, o.found[i - 1].key) != 0)
            o.rows = check_grow(o.rows, &room, o.row_count + 1, sizeof *o.rows),
            o.rows[o.row_count++] = (HtmlOption){.key = v->key, .order = v->order};
        const char **place = &o.rows[o.row_count - 1].values[v->run];
        if (!*place) *place = v->value; /* when a file has a key twice, the first counts */
    }
    if (o.row_count) qsort(o.rows, o.row_count, sizeof *o.rows, html_compare_rows);
    return o;
}

static inline void html_options_free(HtmlOptions *o) {
    for (size_t i = 0; i < o->count; i++) free(o->found[i].key), free(o->found[i].value);
    free(o->found), free(o->rows);
}

/* Whether the runs have different values of something that was chosen. The folder, the date and the measured peak of the
   machine are different in every run. */
static inline bool html_option_differs(const HtmlOption *row, int count) {
    static const char *const never_equal[] = {"out", "date", "machine.peak_flops"};
    for (size_t i = 0; i < sizeof never_equal / sizeof *never_equal; i++)
        if (strcmp(row->key, never_equal[i]) == 0) return false;
    for (int r = 1; r < count; r++) {
        const char *a = row->values[0], *b = row->values[r];
        if (!a != !b || (a && strcmp(a, b) != 0)) return true;
    }
    return false;
}

/* The table of options; with `differing` only those in which runs differ. */
static inline void html_option_rows(FILE *f, const HtmlOptions *o, const Run *runs, int count,
                                    bool differing) {
    fputs("<div class=\"scroll\"><table class=\"options\"><tr><th></th>", f);
    for (int r = 0; r < count; r++) {
        fprintf(f, "<th><span class=\"key\" style=\"--c:var(--c%d)\"></span>", r % HTML_COLORS);
        html_text(f, runs[r].name);
        fputs("</th>", f);
    }
    fputs("</tr>\n", f);
    for (size_t i = 0; i < o->row_count; i++) {
        bool differs = html_option_differs(&o->rows[i], count);
        if (differing && !differs) continue;
        fprintf(f, "<tr%s><td>", differs && !differing ? " class=\"differs\"" : "");
        html_text(f, o->rows[i].key);
        for (int r = 0; r < count; r++) {
            const char *value = o->rows[i].values[r];
            fputs("</td><td>", f);
            html_text(f, value ? *value ? value : "(empty)" : "-");
        }
        fputs("</td></tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

/* Two tables: the options that differ, and all of them. */
static inline void html_options(FILE *f, const Run *runs, int count) {
    HtmlOptions o = html_options_gather(runs, count);
    int differing = 0;
    for (size_t i = 0; i < o.row_count; i++) differing += html_option_differs(&o.rows[i], count);
    if (count > 1) {
        fputs("<section class=\"card\"><h2>What differs</h2>", f);
        if (differing)
            html_option_rows(f, &o, runs, count, true);
        else
            fputs("<p class=\"note\">the runs have the same configuration</p>", f);
        fputs("</section>\n", f);
    }
    if (o.row_count) {
        fprintf(f, "<details class=\"card\"><summary>Whole configuration</summary>");
        html_option_rows(f, &o, runs, count, false);
        fputs("</details>\n", f);
    }
    html_options_free(&o);
}

/* ---- the page ---- */

/* Whether the figure is a loss, and the lowest of all runs; it is then printed bold. */
static inline bool html_is_best(const Run *runs, int count, int run, Figure figure) {
    if (count < 2 || (figure != FIGURE_TRAIN_LOSS && figure != FIGURE_VAL_LOSS)) return false;
    double best = NAN, own = NAN;
    for (int r = 0; r < count; r++) {
        double value = figure == FIGURE_TRAIN_LOSS ? runs[r].train_loss : runs[r].val_loss;
        best = fmin(best, value); /* fmin ignores a NaN */
        if (r == run) own = value;
    }
    return own == best;
}

/* The table of figures, with the colours of the curves or without. */
static inline void html_table(FILE *f, const Run *runs, int count, bool coloured) {
    char text[FORMAT_SIZE];
    fputs(coloured ? "<section class=\"card\">" : "<section>", f);
    fputs("<div class=\"scroll\"><table class=\"runs\"><tr>", f);
    for (int i = 0; i < FIGURE_COUNT; i++)
        if (figure_shown(runs, count, (Figure)i)) fprintf(f, "<th>%s</th>", figures[i].full_title);
    fputs("</tr>\n", f);
    for (int r = 0; r < count; r++) {
        fputs("<tr>", f);
        for (int i = 0; i < FIGURE_COUNT; i++) {
            if (!figure_shown(runs, count, (Figure)i)) continue;
            fprintf(f, "<td data-title=\"%s\"%s>", figures[i].full_title,
                    html_is_best(runs, count, r, (Figure)i) ? " class=\"best\"" : "");
            if (i == FIGURE_NAME && coloured)
                fprintf(f, "<span class=\"key\" style=\"--c:var(--c%d)\"></span>", r % HTML_COLORS);
            html_text(f, figure_text(&runs[r], (Figure)i, text));
            fputs("</td>", f);
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div></section>\n", f);
}

/* A line of options that all runs share. */
static inline void html_facts(FILE *f, const Run *runs, int count) {
    static const struct {
        const char *key, *before, *after;
    } facts[] = {{"layers", "", " layers"}, {"embd", "width ", ""}, {"seq-len", "context ", ""},
                 {"steps", "", " steps"},   {"seed", "seed ", ""},  {"dtype", "", ""},
                 {"data", "data ", ""}};
    int shown = 0;
    fputs("<p class=\"facts\">", f);
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        char a[64], b[64];
        const char *value = run_option(&runs[0], facts[i].key, a);
        bool same = *value != 0;
        for (int r = 1; r < count; r++)
            same = same && strcmp(value, run_option(&runs[r], facts[i].key, b)) == 0;
        if (!same) continue;
        fprintf(f, "%s%s", shown++ ? " · " : "", facts[i].before);
        html_text(f, value);
        int after = (int)strlen(facts[i].after); /* without its last letter after a 1: 1 step, 2 steps */
        fprintf(f, "%.*s", after - (after && strcmp(value, "1") == 0), facts[i].after);
    }
    fputs("</p>\n", f);
}

/* Of two runs: which one ends with the lower validation loss, at the last step at which both measured it. */
static inline void html_verdict(FILE *f, const Run *runs, int count) {
    char text[FORMAT_SIZE];
    double step, difference = runs_final_difference(runs, count, &step);
    if (!isfinite(difference)) return;
    const int lower = difference < 0;
    const bool even = fabs(difference) < VERDICT_EVEN;
    fputs("<p class=\"verdict\"><b>", f);
    html_text(f, runs[lower].name);
    if (even)
        fputs("</b> and <b>", f);
    else
        fprintf(f, "</b> ends <b>%.4f</b> nats below <b>", fabs(difference));
    html_text(f, runs[!lower].name);
    fprintf(f, "</b> %s at step %s.</p>\n", even ? "end even in validation loss" : "in validation loss",
            count_grouped(text, step));
    fputs("<p class=\"note\">One run each: a difference may be the seed's. Repeat with other seeds before "
          "believing a small one.</p>\n",
          f);
}

/* The table of arms. */
static inline void html_arms(FILE *f, const Arms *arms) {
    char text[FORMAT_SIZE];
    fputs("<section class=\"card\"><div class=\"scroll\"><table class=\"runs\"><tr>", f);
    for (int i = 0; i < ARM_FIGURES; i++)
        if (arm_figure_shown(arms, (ArmFigure)i)) fprintf(f, "<th>%s</th>", arm_figures[i].full_title);
    fputs("</tr>\n", f);
    for (int k = 0; k < arms->count; k++) {
        fputs("<tr>", f);
        for (int i = 0; i < ARM_FIGURES; i++) {
            if (!arm_figure_shown(arms, (ArmFigure)i)) continue;
            fprintf(f, "<td data-title=\"%s\">", arm_figures[i].full_title);
            if (i == ARM_NAME)
                fprintf(f, "<span class=\"key\" style=\"--c:var(--c%d)\"></span>", k % HTML_COLORS);
            html_text(f, arm_figure_text(arms, k, (ArmFigure)i, text));
            fputs("</td>", f);
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div></section>\n", f);
}

/* The ArmSee of the page: a paragraph. */
static inline void html_sentence(void *context, const char *sentence) {
    FILE *f = context;
    fputs("<p class=\"note\">", f);
    html_text(f, sentence);
    fputs("</p>\n", f);
}

/* What the arms differ by: the difference in large letters, the sentences about it below. */
static inline void html_arms_verdict(FILE *f, const Arms *arms) {
    for (int k = 1; k < arms->count; k++) {
        char text[ARM_TEXT_SIZE];
        arm_difference_sentence(arms, k, text);
        fputs("<p class=\"verdict\">", f), html_text(f, text), fputs("</p>\n", f);
        arm_details(arms, k, html_sentence, f);
    }
    arms_notes(arms, html_sentence, f);
}

/* The names of the runs or arms, or of many their number. */
static inline void html_heading(FILE *f, const Run *runs, int count) {
    if (count > 4) fprintf(f, "%d %s", count, runs[0].seeds ? "arms" : "runs");
    for (int r = 0; r < count && count <= 4; r++) {
        fputs(r == 0 ? "" : r + 1 < count ? ", " : " and ", f);
        html_text(f, runs[r].name);
    }
}

/* Writes sections of the page. points: how many points a curve may have. */
typedef void HtmlSection(FILE *f, const Run *runs, int count, int64_t points);

/* The beginning of a page, up to its title. */
static inline void html_begin(FILE *f, const Run *runs, int count, const char *what) {
    html_page_begin(f);
    html_heading(f, runs, count);
    html_page_heading(f, what, html_style, sizeof html_style / sizeof *html_style);
    html_heading(f, runs, count);
    fputs("</h1>\n", f);
}

/* The end of a page, with the data of its plots for the script. */
static inline void html_end(FILE *f, const Plot *plots, int plot_count, int64_t points) {
    const char *x = plots[0].x_is_tokens || plots[0].kind == PLOT_FIT ? plot_x_title(&plots[0]) : "step";
    fprintf(f, "</main>\n<script type=\"application/json\" id=\"data\">\n{\"x\":\"%s\",\"names\":[", x);
    for (int r = 0; r < plots[0].count; r++) {
        if (r) fputc(',', f);
        html_json_text(f, plots[0].runs[r].name);
    }
    fputs("],\"plots\":[\n", f);
    for (int k = 0; k < plot_count; k++) {
        html_panel_data(f, &plots[k], points);
        fputs(k + 1 < plot_count ? ",\n" : "\n", f);
    }
    fputs("]}\n</script>\n<script>\n", f);
    html_lines(f, html_script, sizeof html_script / sizeof *html_script);
    fputs("</script>\n</body>\n</html>\n", f);
}

static inline void html_page(FILE *f, const Run *all, int all_count, const Arms *arms, double floor,
                             HtmlSection *more) {
    const Run *runs = arms ? arms->means : all; /* what is drawn */
    const int count = arms ? arms->count : all_count;
    int64_t points = HTML_ALL_POINTS / count > HTML_POINTS ? HTML_POINTS : HTML_ALL_POINTS / count;
    html_begin(f, runs, count, "training report");
    html_facts(f, all, all_count);
    if (arms) {
        html_arms_verdict(f, arms);
        html_arms(f, arms);
        fputs("<details class=\"card\"><summary>All runs</summary>", f);
        html_table(f, all, all_count, false);
        fputs("</details>\n", f);
    } else {
        html_verdict(f, all, all_count);
        html_table(f, all, all_count, true);
    }
    fputs("<div class=\"panels\">\n", f);
    Plot plots[PLOT_COUNT];
    PlotCurves curves[PLOT_COUNT];
    for (int k = 0; k < PLOT_COUNT; k++) {
        curves[k] = plot_curves((PlotKind)k, runs, count);
        plot_begin(&plots[k], (PlotKind)k, runs, &curves[k], count, floor, k == PLOT_VALIDATION ? 10 : 5, 6);
        if (k != PLOT_DIFFERENCE || plot_has_numbers(&plots[k])) html_panel(f, &plots[k], k, points);
    }
    fputs("</div>\n", f);
    more(f, arms ? arms->firsts : all, count, points);
    html_options(f, runs, count);
    html_end(f, plots, PLOT_COUNT, points);
    for (int k = 0; k < PLOT_COUNT; k++) plot_curves_free(curves[k], count);
}

static inline void html_write(const char *path, const Run *runs, int count, const Arms *arms, double floor,
                              HtmlSection *more) {
    FILE *f = check_fopen(path, "w", "name a file in a folder that exists: --out=FILE");
    html_page(f, runs, count, arms, floor, more);
    check_fclose(f, path);
}

#endif
