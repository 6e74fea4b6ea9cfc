/* explain_page.h: the page of HTML that ./explain writes about a model and a prompt. Include train_gpt.c before.

     explain_write_page(f, &page)    writes the page

   Everything is there as HTML and SVG for the last token and one head; the script of explain_style.h changes the numbers in
   place when another token or head is chosen, from the JSON at the end of the page. */
#ifndef TOOLS_EXPLAIN_PAGE_H
#define TOOLS_EXPLAIN_PAGE_H

#include "explain_heads.h"

/* ---- the prompt ---- */

/* The beginning of the prompt in one line, for the title and the heading. */
static inline void page_prompt(FILE *f, const ExplainPage *page) {
    enum { LONGEST = 90 };
    char shown[4 * LONGEST + 1];
    const size_t size = strlen(page->prompt),
                 kept = size < LONGEST ? size : check_whole_characters(page->prompt, LONGEST);
    check_printable(shown, sizeof shown, page->prompt, kept, true);
    for (char *at = shown; *at; at++)
        if (*at == '\n' || *at == '\t') *at = ' ';
    if (shown[strspn(shown, " ")] == 0)
        fputs("(spaces only)", f);
    else
        html_text(f, shown);
    if (kept < size) fputs("…", f);
}

static inline void page_heading(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    const ModelConfig *c = &e->model->config;
    char parameters[FORMAT_SIZE], perplexity[FORMAT_SIZE];
    html_page_begin(f), page_prompt(f, page);
    html_page_heading(f, "inside the model", explain_style, sizeof explain_style / sizeof *explain_style);
    page_prompt(f, page), fputs("</h1>\n<p class=\"facts\">", f);
    fprintf(f, "%s attention · %s parameters · %d layers · %d heads of %d · width %d · vocabulary %d<br>",
            attention_name((AttentionKind)c->attn),
            count_short(parameters, (double)e->model->parameters.floats), c->layers, c->heads, c->head_dim,
            c->embd, c->vocab_size);
    html_text(f, page->folder);
    fprintf(f, "</p>\n<p class=\"verdict\">The prompt has %d token%s. ", e->n, e->n == 1 ? "" : "s");
    if (isfinite(e->mean_loss))
        fprintf(f,
                "Its mean loss is <b>%.3f</b> nats a token: on average the model is as uncertain as among "
                "<b>%s</b> equally likely tokens. ",
                e->mean_loss, small_text(perplexity, exp(e->mean_loss)));
    const Guess *best = explanation_guess(e, c->layers, e->n - 1, 0);
    fputs("As the next token it expects <b class=\"k\">", f), page_token(f, page, best->token);
    fputs("</b> with ", f), page_percent(f, best->p), fputs(".</p>\n", f);
    fputs("<noscript><p class=\"note\">Choosing tokens and heads needs JavaScript. Without it the page shows "
          "the last token and one head.</p></noscript>\n<div class=\"chosen\" hidden role=\"group\" "
          "aria-label=\"the chosen token\"><button type=\"button\" data-step=\"-1\" aria-label=\"previous "
          "token\">&lsaquo;</button><button type=\"button\" data-step=\"1\" aria-label=\"next "
          "token\">&rsaquo;</button><span aria-live=\"polite\">token ",
          f);
    page_place(f, page, e->n - 1), fputs("</span></div>\n", f);
}

/* Each token as a button, whose colour is its loss; a loss of `most` has the strongest. */
static inline void page_token_buttons(FILE *f, const ExplainPage *page, double most) {
    const Explanation *e = page->e;
    fputs("<div class=\"tokens\">", f);
    for (int t = 0; t < e->n; t++) {
        size_t size;
        const char *bytes = tokenizer_decode_token(page->tokenizer, e->tokens[t], &size);
        fputs("<button type=\"button\" class=\"k tint\" style=\"", f), page_share(f, e->losses[t] / most);
        fprintf(f, "\" data-t=\"%d\" title=\"token %d, id %d", t, t, e->tokens[t]);
        if (t) fprintf(f, ": loss %.3f, probability ", e->losses[t]), page_percent(f, exp(-e->losses[t]));
        fputs("\">", f), page_token(f, page, e->tokens[t]), fputs("</button>\n", f);
        if (size && memchr(bytes, '\n', size)) fputs("<span class=\"end\"></span>\n", f);
    }
    fputs("</div>\n", f);
}

static inline void page_token_table(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    fputs("<div class=\"scroll\"><table><tr><th>number</th><th>token</th><th>id</th><th>loss</"
          "th><th>probability</th><th>likelier tokens</th></tr>\n",
          f);
    for (int t = 0; t < e->n; t++) {
        fprintf(f, "<tr><td>%d</td><td class=\"k\">", t), page_token(f, page, e->tokens[t]);
        fprintf(f, "</td><td>%d</td>", e->tokens[t]);
        if (t) {
            fprintf(f, "<td>%.3f</td><td>", e->losses[t]), page_percent(f, exp(-e->losses[t]));
            fprintf(f, "</td><td>%d</td></tr>\n",
                    explanation_truth(e, e->model->config.layers, t - 1)->likelier);
        } else
            fputs("<td>-</td><td>-</td><td>-</td></tr>\n", f);
    }
    fputs("</table></div>", f);
}

static inline void page_tokens(FILE *f, const ExplainPage *page) {
    const int V = page->e->model->config.vocab_size;
    page_section(
        f, "The tokens, and how well each was expected",
        "The model reads numbers, and each stands for one of these pieces of text (· is a space, ↵ the end "
        "of a line). The stronger the colour, the larger the loss: the more the token surprised the model, "
        "given the tokens before it. The first, token 0, has none, since nothing stands before it. "
        "<b>Choose a token here, and the rest of the page is about it.</b>");
    page_token_buttons(f, page, log(V));
    fprintf(f,
            "<p class=\"scale\">loss in nats: 0 <i></i> %.2f or more, that of a guess among all %d "
            "tokens</p>\n<details><summary>The same as a table</summary>",
            log(V), V);
    page_token_table(f, page);
    fputs("</details></section>\n", f);
}

/* ---- predictions ---- */

static inline void page_prediction(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    char text[FORMAT_SIZE];
    page_section(f, "What comes next",
                 "The tokens that the whole model finds likeliest after the chosen one, with their "
                 "probabilities. Where the prompt goes on, the token that really follows is outlined if it "
                 "is among them.");
    fputs("<h3>After ", f), page_place(f, page, e->n - 1),
        fputs("</h3>\n<ol class=\"bars\" id=\"next\">\n", f);
    for (int i = 0; i < EXPLAIN_GUESSES; i++) {
        const Guess *guess = explanation_guess(e, e->model->config.layers, e->n - 1, i);
        if (guess->token >= 0) page_bar(f, page, -1, guess->token, guess->p, percent_text(text, guess->p));
    }
    fputs("</ol></section>\n", f);
}

enum { EXPLAIN_COLUMNS = 5 };

static inline void page_stage(FILE *f, int l) {
    if (l == 0)
        fputs("embedding", f);
    else
        fprintf(f, "layer %d", l - 1);
}

/* The guesses of each stage at the last token. */
static inline void page_lens(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    fputs("<h3>After ", f), page_place(f, page, e->n - 1);
    fputs("</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"predictions of each "
          "layer\"><table class=\"heat lens\" "
          "id=\"lens\"><tr><th>after</th><th>likeliest</th><th>2nd</th><th>3rd</th><th>4th</th><th>5th</"
          "th><th>what "
          "follows</th></tr>\n",
          f);
    for (int l = 0; l <= e->model->config.layers; l++) {
        fputs("<tr data-stage><th>", f), page_stage(f, l), fputs("</th>", f);
        for (int i = 0; i < EXPLAIN_COLUMNS; i++) {
            const Guess *guess = explanation_guess(e, l, e->n - 1, i);
            if (guess->token < 0) continue;
            fputs("<td style=\"", f), page_share(f, guess->p), fputs("\"><span class=\"k\">", f);
            page_token(f, page, guess->token);
            fputs("</span><small>", f), page_percent(f, guess->p), fputs("</small></td>", f);
        }
        fputs("<td><span>-</span><small></small></td></tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

/* The likeliest token of each stage at each token. */
static inline void page_lens_grid(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    fputs("<h3>After every token: the likeliest</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
          "aria-label=\"the likeliest token of each layer after each token\"><table class=\"heat "
          "grid\"><tr><th>after</th>",
          f);
    for (int t = 0; t < e->n; t++)
        fprintf(f, "<th data-t=\"%d\">", t), page_token(f, page, e->tokens[t]), fputs("</th>", f);
    fputs("</tr>\n", f);
    for (int l = 0; l <= e->model->config.layers; l++) {
        fputs("<tr><th>", f), page_stage(f, l), fputs("</th>", f);
        for (int t = 0; t < e->n; t++) {
            const Guess *guess = explanation_guess(e, l, t, 0);
            const bool real = t + 1 < e->n && guess->token == e->tokens[t + 1];
            fprintf(f, "<td%s style=\"", real ? " class=\"real\"" : ""), page_share(f, guess->p);
            fprintf(f, "\" data-t=\"%d\" title=\"", t), page_percent(f, guess->p), fputs("\">", f);
            page_token(f, page, guess->token), fputs("</td>", f);
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

static inline void page_layers(FILE *f, const ExplainPage *page) {
    page_section(
        f, "What each layer would predict",
        "Each layer adds to the vector of a token, the residual stream. Here the model's final norm "
        "and output matrix are applied to that vector after every layer, as if the layers behind it "
        "did not exist (the logit lens). Look for the layer at which the prediction settles, and "
        "for guesses that are given up again. The last row is what the model really predicts. The "
        "stronger the colour, the larger the probability. <b>Outlined</b> is the token that really "
        "follows in the prompt; the last column has its probability, and its rank among all tokens.");
    page_lens(f, page), page_lens_grid(f, page);
    fputs("</section>\n", f);
}

/* ---- sizes ---- */

static inline double mean_of(const double *x, int n) {
    double sum = 0;
    for (int t = 0; t < n; t++) sum += x[t];
    return sum / n;
}

static inline void page_size(FILE *f, const char *name, const double *of_layer, int l, int n, double most) {
    char text[FORMAT_SIZE];
    fprintf(f, "<td data-size=\"%s\" data-l=\"%d\" style=\"", name, l), page_share(f, of_layer[n - 1] / most);
    fprintf(f, ";--mean:%.3g\"><span class=\"track\"><i></i><u></u></span><span>%s</span></td>",
            fmin(1, mean_of(of_layer, n) / most), size_text(text, of_layer[n - 1]));
}

static inline void page_sizes(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    const int L = e->model->config.layers, n = e->n;
    double most = 1e-30;
    for (int l = 0; l <= L; l++) {
        most = fmax(most, fmax(e->stream[l * n + n - 1], mean_of(e->stream + (int64_t)l * n, n)));
        if (l == L) continue;
        most = fmax(most, fmax(e->attention[l * n + n - 1], mean_of(e->attention + (int64_t)l * n, n)));
        most = fmax(most, fmax(e->mlp[l * n + n - 1], mean_of(e->mlp + (int64_t)l * n, n)));
    }
    page_section(
        f, "How much each layer adds",
        "The length of the chosen token's vector after each layer, and of what attention and the MLP of that "
        "layer add to it, all on one scale. The upright mark is the mean over all tokens of the prompt. A "
        "layer whose additions are short against the vector changes little; a first token that is much "
        "longer than the others is common.");
    fputs("<h3>At ", f), page_place(f, page, n - 1);
    fputs(
        "</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"lengths by layer\"><table "
        "class=\"sizes\"><tr><th>after</th><th>the vector</th><th>attention added</th><th>the MLP "
        "added</th></tr>\n",
        f);
    for (int l = 0; l <= L; l++) {
        fputs("<tr><th>", f), page_stage(f, l), fputs("</th>", f);
        page_size(f, "stream", e->stream + (int64_t)l * n, l, n, most);
        if (l) page_size(f, "attention", e->attention + (int64_t)(l - 1) * n, l - 1, n, most);
        if (l) page_size(f, "mlp", e->mlp + (int64_t)(l - 1) * n, l - 1, n, most);
        fputs(l ? "</tr>\n" : "<td></td><td></td></tr>\n", f);
    }
    fputs("</table></div></section>\n", f);
}

/* ---- gradients ---- */

/* The name of a tensor in words: "q" for "model.layers.3.self_attn.q_proj.weight". */
static inline const char *tensor_short(char text[64], const Tensor *t) {
    static const struct {
        const char *part, *words;
    } names[] = {{"model.layers.%d.", ""},
                 {"model.norm", "final norm"},
                 {"model.", ""},
                 {"self_attn.", ""},
                 {"mlp.", ""},
                 {"_proj", ""},
                 {".weight", ""},
                 {"input_layernorm", "attention norm"},
                 {"post_attention_layernorm", "MLP norm"},
                 {"post_self_attn_layernorm", "attention output norm"},
                 {"post_mlp_layernorm", "MLP output norm"},
                 {"lm_head", "output"}};
    char rest[64];
    snprintf(text, 64, "%.*s", (int)strcspn(t->row->name, "|"), t->row->name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *at = strstr(text, names[i].part);
        if (!at) continue;
        snprintf(rest, sizeof rest, "%s", at + strlen(names[i].part));
        snprintf(at, (size_t)(text + 64 - at), "%s%s", names[i].words, rest);
    }
    for (char *at = text; *at; at++)
        if (*at == '.' || *at == '_') *at = ' ';
    return text;
}

static inline void page_gradient(FILE *f, double x, double most, const Tensor *t) {
    char text[FORMAT_SIZE];
    fputs("<td style=\"", f), page_share(f, most > 0 ? sqrt(x / most) : 0);
    fprintf(f, "\" title=\"%s, root mean square of an element %.2e\">%s</td>", t->name,
            x / sqrt((double)t->count), small_text(text, x));
}

/* A row for each layer, and the tensors outside of the layers below. The tensors of a layer lie one after the other. */
static inline void page_gradient_tables(FILE *f, const Explanation *e) {
    const TensorTable *table = &e->model->parameters;
    const int L = e->model->config.layers;
    double most = 0, squares = 0;
    int first = 0, kinds = 0;
    char text[FORMAT_SIZE], name[64];
    while (!table->tensors[first].per_layer) first++;
    while (table->tensors[first + kinds].per_layer && table->tensors[first + kinds].layer == 0) kinds++;
    for (int i = 0; i < table->count; i++) {
        squares += e->gradients[i] * e->gradients[i];
        if (table->tensors[i].per_layer) most = fmax(most, e->gradients[i]);
    }
    fputs("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"gradients by layer and "
          "tensor\"><table class=\"heat\"><tr><th>layer</th>",
          f);
    for (int k = 0; k < kinds; k++) fprintf(f, "<th>%s</th>", tensor_short(name, &table->tensors[first + k]));
    fputs("<th>all</th></tr>\n", f);
    for (int l = 0; l < L; l++) {
        double layer = 0;
        fprintf(f, "<tr><th>%d</th>", l);
        for (int k = 0; k < kinds; k++) {
            const int i = first + l * kinds + k;
            layer += e->gradients[i] * e->gradients[i];
            page_gradient(f, e->gradients[i], most, &table->tensors[i]);
        }
        fprintf(f, "<td class=\"sum\">%s</td></tr>\n", small_text(text, sqrt(layer)));
    }
    fputs("</table></div>\n<h3>Outside of the layers</h3>\n<div class=\"scroll\"><table class=\"heat\"><tr>",
          f);
    for (int i = 0; i < table->count; i++)
        if (!table->tensors[i].per_layer) fprintf(f, "<th>%s</th>", tensor_short(name, &table->tensors[i]));
    fputs("<th>all parameters</th></tr>\n<tr>", f);
    for (int i = 0; i < table->count; i++)
        if (!table->tensors[i].per_layer) page_gradient(f, e->gradients[i], most, &table->tensors[i]);
    fprintf(f, "<td class=\"sum\">%s</td></tr></table></div>\n", small_text(text, sqrt(squares)));
}

static inline void page_gradients(FILE *f, const ExplainPage *page) {
    page_section(
        f, "The gradient of one training step",
        "How strongly this prompt would change each matrix if the model were trained on it: the length of "
        "the gradient of the mean loss, before clipping; the strength of the colour is the root of the "
        "length. "
        "Compare q and k with v and o: the gradient reaches q and k only through the attention weights. “All "
        "parameters” is what the trainer's log calls grad_norm.");
    if (page->e->gradients)
        page_gradient_tables(f, page->e);
    else
        fputs("<p>A prompt of one token has no loss, because nothing follows the token. So there is no "
              "gradient.</p>\n",
              f);
    fputs("</section>\n", f);
}

/* ---- the numbers for the script ---- */

/* A list; null stands for what is no finite number. */
static inline void page_json_list(FILE *f, const double *x, int n) {
    for (int i = 0; i < n; i++) {
        fputc(i ? ',' : '[', f);
        if (isfinite(x[i]))
            fprintf(f, "%.5g", x[i]);
        else
            fputs("null", f);
    }
    fputc(']', f);
}

/* Lengths (count, n) of each layer and token, and their means over the tokens. */
static inline void page_json_lengths(FILE *f, const char *name, const double *rows, int count, int n) {
    double *means = check_calloc((size_t)count * sizeof *means);
    fprintf(f, ",\n\"%s\":{\"lengths\":", name);
    for (int l = 0; l < count; l++) {
        const double *row = rows + (int64_t)l * n;
        means[l] = mean_of(row, n);
        fputc(l ? ',' : '[', f), page_json_list(f, row, n);
    }
    fputs("],\"means\":", f), page_json_list(f, means, count), fputc('}', f);
    free(means);
}

/* [id, p, id, p, ...] of the first `count` guesses of a position. */
static inline void page_json_guesses(FILE *f, const Explanation *e, int l, int t, int count) {
    for (int i = 0; i < count; i++) {
        const Guess *guess = explanation_guess(e, l, t, i);
        if (guess->token >= 0) fprintf(f, "%s%d,%.4g", i ? "," : t ? ",[" : "[", guess->token, guess->p);
    }
    fputc(']', f);
}

/* The text of every token that occurs, by its id. */
static inline void page_json_words(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    const int64_t guesses = ((int64_t)e->model->config.layers + 1) * e->n * EXPLAIN_GUESSES;
    bool *occurs = check_calloc((size_t)e->model->config.vocab_size * sizeof *occurs), some = false;
    for (int t = 0; t < e->n; t++) occurs[e->tokens[t]] = true;
    for (int64_t i = 0; i < guesses; i++)
        if (e->guesses[i].token >= 0) occurs[e->guesses[i].token] = true;
    fputs(",\n\"words\":{", f);
    for (int id = 0; id < e->model->config.vocab_size; id++) {
        char shown[EXPLAIN_SHOWN];
        if (!occurs[id]) continue;
        fprintf(f, "%s\"%d\":", some ? "," : "", id),
            html_json_text(f, token_shown(shown, page->tokenizer, id));
        some = true;
    }
    fputc('}', f);
    free(occurs);
}

static inline void page_json(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    const int L = e->model->config.layers, n = e->n;
    fprintf(f, "<script type=\"application/json\" id=\"data\">\n{\"heads\":%d,\"head\":%d,\"tokens\":[",
            e->model->config.heads, page->head);
    for (int t = 0; t < n; t++) fprintf(f, "%s%d", t ? "," : "", e->tokens[t]);
    fputs("],\n\"next\":[", f);
    for (int t = 0; t < n; t++) page_json_guesses(f, e, L, t, EXPLAIN_GUESSES);
    fputs("],\n\"lens\":[", f);
    for (int l = 0; l <= L; l++) {
        fputs(l ? ",\n[" : "[", f);
        for (int t = 0; t < n; t++) page_json_guesses(f, e, l, t, EXPLAIN_COLUMNS);
        fputc(']', f);
    }
    fputs("],\n\"truth\":[", f);
    for (int l = 0; l <= L; l++) {
        fputs(l ? ",\n[" : "[", f);
        for (int t = 0; t + 1 < n; t++) {
            const Truth *truth = explanation_truth(e, l, t);
            fprintf(f, "[%.4g,%d],", truth->p, truth->likelier);
        }
        fputs("[null,0]]", f);
    }
    fputc(']', f);
    page_json_lengths(f, "stream", e->stream, L + 1, n);
    page_json_lengths(f, "attention", e->attention, L, n);
    page_json_lengths(f, "mlp", e->mlp, L, n);
    page_json_words(f, page);
    if (e->has_weights) page_json_weights(f, e);
    fputs("}\n</script>\n", f);
}

static inline void explain_write_page(FILE *f, const ExplainPage *page) {
    page_heading(f, page);
    page_tokens(f, page);
    page_prediction(f, page);
    page_layers(f, page);
    page_heads(f, page);
    page_sizes(f, page);
    page_gradients(f, page);
    page_laser(f, page->e);
    fputs("<footer>Computed in float32 by ./explain of laser.c. docs/using.md says what each number "
          "is.</footer>\n</main>\n",
          f);
    page_json(f, page);
    fputs("<script>\n", f);
    html_lines(f, explain_script, sizeof explain_script / sizeof *explain_script);
    fputs("</script>\n</body>\n</html>\n", f);
}

#endif
