/* tokenizer_unicode.h: reads UTF-8 strictly, knows whether a character is a letter, a number, white space or something
   else, and cuts text into pieces by GPT-2's rule (tokenizer.h), which is about these classes.

     classes = tokenizer_classes()      (TOKENIZER_CODE_POINTS) the class of each character; the caller frees it
     tokenizer_utf8(p, end, &length)    the code point at p < end and its length in bytes; an invalid byte is -1, of
                                        length 1
     tokenizer_class(classes, p, end, &length)
                                        the class of that character
     tokenizer_piece(classes, p, end)   the end of the first piece of a text [p, end) that is not empty */
#ifndef GPT_IO_TOKENIZER_UNICODE_H
#define GPT_IO_TOKENIZER_UNICODE_H

#include "../base/check.h"

/* The classes of Unicode 16 as runs of code points, printed by data/unicode_classes.py: the length of a run in base 36,
   then its class: + letter, # number, _ white space, . other. */
enum { TOKENIZER_OTHER, TOKENIZER_LETTER, TOKENIZER_NUMBER, TOKENIZER_SPACE };
enum { TOKENIZER_CODE_POINTS = 0x110000 };

static const char tokenizer_runs[] =
    "9.5_i.1_f.a#7.q+6.q+a.1_q.1_9.1+7.2#1.1+3.1#1+1.3#1.n+1.v+1.cq+4.c+e.5+7.1+1.1+3l.5+1.2+2.4+1.1+6.1+"
    "1.3+1.1+1.k+1.2b+1.3v+8.4m+1.12+2.1+6.15+1z.r+4.4+19.17+l.a#4.2+1.2r+1.1+f.2+7.2+a#3+2.1+g.1+1.u+t.2"
    "h+b.1+e.a#x+9.2+4.1+5.m+4.1+9.1+3.1+n.p+7.b+5.o+1.6+h.16+1m.1i+3.1+i.1+7.a+4.a#1.g+4.8+2.2+2.m+1.7+1"
    ".1+3.4+3.1+g.1+d.2+1.3+4.a#2+2.6#2.1+8.6+4.2+2.m+1.7+1.2+1.2+1.2+v.4+1.1+7.a#2.3+g.9+1.3+1.m+1.7+1.2"
    "+1.5+3.1+i.1+f.2+4.a#9.1+b.8+2.2+2.m+1.7+1.2+1.5+3.1+u.2+1.3+4.a#1.1+6#b.1+1.6+3.3+1.4+3.2+1.1+1.2+3"
    ".2+3.3+3.c+m.1+l.d#i.8+1.3+1.n+1.g+3.1+q.3+2.1+2.2+4.a#8.7#1.1+4.8+1.3+1.n+1.a+1.5+3.1+v.2+1.2+4.a#1"
    ".2+h.9+1.3+1.15+2.1+g.1+5.3+1.7#3+4.j#1.6+5.i+3.o+1.9+1.1+2.7+v.a#h.1c+1.2+c.7+9.a#13.2+1.1+1.5+1.o+"
    "1.1+1.a+1.2+9.1+2.5+1.1+9.a#2.4+w.1+v.k#c.8+1.10+r.5+37.17+k.1+a#6.6+4.4+3.1+3.2+7.3+4.d+c.1+1.a#6.1"
    "2+1.1+5.1+2.17+1.99+1.4+2.7+1.1+1.4+2.15+1.4+2.x+1.4+2.7+1.1+1.4+2.f+1.1l+1.4+2.1v+e.k#3.g+g.2e+2.6+"
    "3.h8+2.h+1_q+5.23+3.3#8+7.i+d.j+e.i+e.d+1.3+f.1g+z.1+4.1+3.a#6.a#m.a#6.2h+7.5+2.y+1.1+5.1y+a.v+13.a#"
    "u+2.5+b.18+4.q+6.b#11.n+9.1h+17.a#6.a#d.1+2l.1b+h.8+3.a#15.u+d.2+a#18+q.10+s.a#3.3+a#10+2.b+5.17+2.3"
    "+15.4+1.6+1.2+3.1+5.5c+1s.7q+2.6+2.12+2.6+2.8+1.1+1.1+1.1+1.v+2.1h+1.7+1.1+3.3+1.7+3.4+2.6+4.d+5.3+1"
    ".7+3.b_t.2_5.1_1b.1_g.1#1+2.6#5.1+a#6.d+2t.1+4.1+2.a+1.1+3.5+6.1+1.1+1.1+1.4+1.b+2.4+5.5+4.1+1.1f#2+"
    "5#k6.1o#26.m#hi.u#vg.6d+6.4+3.2+9.1#2.12+1.1+5.1+2.1k+7.1+g.n+9.7+1.7+1.7+1.7+1.7+1.7+1.7+1.7+28.1+c"
    "w.1_4.2+1#p.9#7.5+2.3#2+4.2e+6.3+1.2i+1.4+5.17+1.2m+3.4#a.w+1c.g+w.a#u.8#1.f#w.a#13.f#8w.534+1s.h3h+"
    "1v.1a+2.7h+3.g+a#2+k.1b+g.v+2.1y+a#13.9+2.2v+2.1v+2.2+1.1+1.8+l.g+1.3+1.4+1.n+d.6#a.1g+e.1e+s.a#o.6+"
    "3.1+1.2+1.a#s+a.n+p.t+7.1b+s.1+a#6.5+1.a+a#5+1.15+n.3+1.8+4.a#6.n+3.1+3.1e+1.1+3.2+2.5+2.1+1.1+o.3+2"
    ".b+7.3+c.6+2.6+2.6+9.7+1.7+1.17+1.e+6.37+d.a#6.8mc+c.n+4.1d+6is.a6+2.2y+12.7+c.5+5.1+1.a+1.d+1.5+1.1"
    "+1.2+1.2+1.30+x.a3+i.1s+2.1i+14.c+38.5+1.3r+j.a#7.q+6.q+b.2h+3.6+2.6+2.6+2.3+z.c+1.q+1.j+1.2+1.f+2.e"
    "+y.3f+c.19#c.1l#h.2#6s.t+3.1d+g.r#4.w+4#9.k+1#8+1#5.12+a.u+2.10+4.8+1.5#16.4e+2.a#6.10+4.10+4.14+8.1"
    "g+c.b+1.f+1.7+1.2+1.b+1.f+1.7+1.2+3.1g+c.8n+9.m+a.8+o.6+1.16+1.9+1x.6+2.1+1.18+1.2+3.1+2.n+2.8#n+2.7"
    "#v+8.9#1c.j+1.2+5.5#m+6#4.q+1y.1k+4.2#2+g#2.1a#1+f.4+1.3+1.t+a.9#n.t+2#1.t+3#w.8+1.s+6.5#g.1i+a.m+2."
    "8#j+5.8#i+n.7#28.21+1j.1f+d.1f+7.6#10+c.a#6.a#s+9.n+62.v#1.16+6.2+g.3+1n.t+a#1+8.m+b.4#r.i+1a.l+7#k."
    "n+c.1h+q.u#1.2+2.1+d.19+w.p+7.a#9.10+f.a#4.1+2.1+8.z+3.1+c.1c+e.4+b.a#1+1.1+4.k#b.i+1.p+j.2+1r.7+1.1"
    "+1.4+1.f+1.a+7.1b+h.a#b.8+2.2+2.m+1.7+1.2+1.5+3.1+i.1+c.5+u.a+1.1+2.1+1.12+1.1+p.1+1.1+18.1h+i.4+5.a"
    "#5.3+u.1c+k.2+1.1+8.a#4m.1b+15.4+10.1c+k.1+b.a#12.17+d.1+7.a#6.k#s.r+l.c#4.7+55.18+38.1s+j#c.8+2.1+2"
    ".8+1.2+1.o+f.1+1.1+e.a#1y.8+2.13+g.1+1.1+s.1+a.14+7.1+l.1+b.1a+j.1+i.21+5j.x+f.a#6.9+1.11+h.1+f.t#5."
    "u+34.7+1.2+1.12+l.1+9.a#6.6+1.2+1.w+e.1+7.a#8m.j+f.1+1.d+1.y+s.a#2e.1+f.l#17.pm+2u.33#h.5g+218.2p+f."
    "ts+h.6+p.32z+5.g7+5a1.u+i.a#1c6.ft+7.v+1.a#6.27+1.a#6.u+i.1c+g.4+c.a#1.7#1.l+5.j+c0.19+3.a#5i.1s+n#2"
    "x.23+5.1+1u.d+1s.2+1.1+s.4qg+8.ye+15.a+6w7.4+1.7+1.2+1.83+f.1+t.3+2.1+e.4+8.b0+1s4.2z+5.d+3.9+7.a+38"
    "6.a#152.k#c.k#30.p#3r.2d+1.1z+1.2+2.1+2.2+2.4+1.c+1.1+1.7+1.1t+1.4+2.8+1.7+1.s+1.4+1.5+1.1+3.7+1.9g+"
    "2.p+1.p+1.v+1.p+1.v+1.p+1.v+1.p+1.v+1.p+1.8+2.1e#1ds.v+6.6+79.1q+42.19+a.7+2.a#4.1+8x.u+i.18+4.a#d2."
    "s+4.a#5y.u+2.1+a#dh.7+1.4+1.2+1.f+1.5h+2.9#1c.1w+7.1+4.a#lz.1n#1.3#1.4#24.19#1.f#5e.4+1.r+1.2+1.1+2."
    "1+1.a+1.4+1.1+1.1+6.1+4.1+1.1+1.1+1.3+1.2+1.1+2.1+1.1+1.1+1.1+1.1+1.2+1.1+2.4+1.7+1.4+1.4+1.1+1.a+1."
    "h+5.3+1.5+1.h+g4.d#25f.a#sm.wyo+w.37e+6.66+2.4g2+e.5rl+f.ha+1wi.f2+15u.3t7+5.38g+";

static inline unsigned char *tokenizer_classes(void) {
    static const char marks[] = ".+#_"; /* in the order of the classes */
    unsigned char *classes = check_calloc(TOKENIZER_CODE_POINTS), *at = classes;
    for (const char *run = tokenizer_runs; *run;) {
        char *mark;
        size_t length = strtoul(run, &mark, 36);
        memset(at, (int)(strchr(marks, *mark) - marks), length);
        at += length, run = mark + 1;
    }
    return classes;
}

/* tokenizer_utf8 for characters of more than one byte. */
static inline int tokenizer_utf8_long(const unsigned char *p, const unsigned char *end, int *length) {
    int more = p[0] >= 0xF0 ? 3 : p[0] >= 0xE0 ? 2 : 1;
    if (p[0] < 0xC2 || p[0] > 0xF4 || end - p <= more) return -1;
    int code = p[0] & (0x3F >> more);
    for (int i = 1; i <= more; i++) {
        if ((p[i] & 0xC0) != 0x80) return -1;
        code = code << 6 | (p[i] & 0x3F);
    }
    static const int least[4] = {0, 0x80, 0x800, 0x10000};
    if (code < least[more] || code >= TOKENIZER_CODE_POINTS || (code >= 0xD800 && code < 0xE000)) return -1;
    *length = more + 1;
    return code;
}

/* Overlong forms and surrogates are not valid. */
static inline int tokenizer_utf8(const unsigned char *p, const unsigned char *end, int *length) {
    *length = 1;
    return p[0] < 0x80 ? p[0] : tokenizer_utf8_long(p, end, length);
}

static inline int tokenizer_class(const unsigned char *classes, const unsigned char *p,
                                  const unsigned char *end, int *length) {
    int code = tokenizer_utf8(p, end, length);
    return code < 0 ? TOKENIZER_OTHER : classes[code];
}

/* ---- GPT-2's rule ---- */

/* The end of the run of characters of the class `kind` that begins at p; p itself when there is none. */
static inline const unsigned char *tokenizer_run(const unsigned char *classes, const unsigned char *p,
                                                 const unsigned char *end, int kind) {
    int length = 1;
    for (; p < end; p += length) {
        length = 1;
        if (*p < 0x80 ? classes[*p] != kind : tokenizer_class(classes, p, end, &length) != kind) break;
    }
    return p;
}

/* The end of the piece that a run of white space at p makes: the whole run when the text ends with it, otherwise the
   run without its last character, which belongs to the piece that follows; a run of one character is a piece of its
   own. */
static inline const unsigned char *tokenizer_white(const unsigned char *classes, const unsigned char *p,
                                                   const unsigned char *end) {
    const unsigned char *last = p, *q = p;
    int length;
    while (q < end && tokenizer_class(classes, q, end, &length) == TOKENIZER_SPACE) last = q, q += length;
    return q == end || last == p ? q : last;
}

static inline const unsigned char *tokenizer_piece(const unsigned char *classes, const unsigned char *p,
                                                   const unsigned char *end) {
    int length, kind = tokenizer_class(classes, p, end, &length);
    if (*p == ' ' &&
        end - p > 1) { /* a space belongs to the piece that follows, unless that is white space too */
        kind = tokenizer_class(classes, p + 1, end, &length);
        if (kind != TOKENIZER_SPACE) return tokenizer_run(classes, p + 1 + length, end, kind);
    }
    if (kind == TOKENIZER_SPACE) return tokenizer_white(classes, p, end);
    if (*p == '\'' && end - p > 1) {
        if (p[1] == 's' || p[1] == 't' || p[1] == 'm' || p[1] == 'd') return p + 2;
        if (end - p > 2 && ((p[1] == 'l' && p[2] == 'l') || ((p[1] == 'r' || p[1] == 'v') && p[2] == 'e')))
            return p + 3;
    }
    return tokenizer_run(classes, p + length, end, kind);
}

#endif
