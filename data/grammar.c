/* grammar.c: writes any amount of little stories from a probabilistic grammar whose entropy is known exactly.

   cc -O2 data/grammar.c -o grammar -lcjson -lm
   ./grammar --bytes=8000000 --seed=1 --out=stories.txt     writes stories.txt and stories.json
   ./grammar --score=stories.txt                            finds the choices that gave the text; prints the same numbers

   The stories serve two purposes. A machine without any text can train on them. And they answer a question that real
   text cannot answer: how much of a loss is due to the model, and how much to the text, which no model can predict
   completely? To predict the stories well a model needs attention. Verbs agree with nouns across nested clauses ("The
   dogs that the king near the towers trusts sleep."), quotations are nested, and pronouns refer to persons. Who is
   what, who owns what and what lies where is said once, changes, and is asked much later. People and towns have names
   that are composed of syllables, so a model must copy them from the text before; it cannot have learned them.

   Why the probability is exact. A story is a sequence of choices, each among several texts, called alternatives. What
   is chosen is written at once. No alternative is a prefix of another one of the same choice (where alternatives are
   whole words, a word ends only where no letter follows). So the text tells which choices were made; there is one
   sequence of choices for it, and
        -log p(story) = sum over choices of log(total weight / weight of the alternative chosen).
   No model can have a lower expected loss: with any tokenizer that encodes each text in only one way, the loss in nats
   per token is at least nats_per_byte * bytes / tokens. The same functions write stories and read them. When reading
   (Teller.reading), a choice finds the alternative that the text continues with, and the program ends with an error if
   there is none, or more than one.

   FILE.json has the numbers seed, documents, bytes (of the stories, without separators), nats (-log p of all
   stories), and nats_per_byte. Two more are for checking the sampler: expected_nats, the sum of the entropies of all
   choices, and the standard deviation of nats from it. Stories are separated by lines "<|endoftext|>"; for ./prepare
   this is --separator='<|endoftext|>'. Random numbers come from gpt/math/rng.h, and choices are made with integers, so
   the same seed gives the same text on every machine. */
#define _GNU_SOURCE
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../gpt/io/files.h"
#include "../gpt/run/options.h"
#include "../gpt/math/rng.h"

/* ------------------------------------------------------------------------------- choices, written or read */

typedef struct {
    char *text; /* writing: the story so far; reading: the whole file */
    size_t length, capacity;
    size_t at; /* reading: where the next choice begins in text */
    bool reading;
    uint64_t seed, document, draws;
    double nats, expected_nats, variance; /* sums over all choices so far */
    const char *path;
} Teller;

typedef struct {
    char text[48];
    int weight; /* its probability is weight / sum of the weights; 0: it cannot be chosen now */
} Choice;

enum { CHOICES_MAX = 32 };

typedef struct {
    Choice list[CHOICES_MAX];
    int count;
} Choices;

/* Writing: appends the text. Reading: moves past the text, which must come next, else the program ends. */
static void tell(Teller *t, const char *text) {
    size_t n = strlen(text);
    if (t->reading) {
        if (n > t->length - t->at || memcmp(t->text + t->at, text, n) != 0)
            die("'%s': byte %zu is not of this grammar: expected '%s', found '%.40s'", t->path, t->at, text,
                t->text + t->at);
        t->at += n;
        return;
    }
    t->text = check_grow(t->text, &t->capacity, t->length + n + 1, 1);
    memcpy(t->text + t->length, text, n + 1);
    t->length += n;
}

/* Reading: whether `text` comes next. whole: it is a whole word, so when it ends in a letter no letter may follow. */
static bool comes_next(const Teller *t, const char *text, bool whole) {
    size_t n = strlen(text);
    if (n > t->length - t->at || memcmp(t->text + t->at, text, n) != 0) return false;
    return !whole || !isalpha((unsigned char)text[n - 1]) || !isalpha((unsigned char)t->text[t->at + n]);
}

/* Reading: the number of the alternative that comes next. Ends the program when there is none, or more than one. */
static int recognise(const Teller *t, const Choices *c, bool whole) {
    int found = -1;
    for (int i = 0; i < c->count; i++) {
        if (c->list[i].weight == 0 || !comes_next(t, c->list[i].text, whole)) continue;
        if (found >= 0)
            die("the grammar is ambiguous: '%s' and '%s' both match at byte %zu", c->list[found].text,
                c->list[i].text, t->at);
        found = i;
    }
    if (found < 0)
        die("'%s': byte %zu is not of this grammar: none of the %d alternatives matches '%.40s'", t->path,
            t->at, c->count, t->text + t->at);
    return found;
}

/* Makes one choice, writes or reads its text, and returns its number. whole: the alternatives are whole words, not
   syllables. */
static int choose_among(Teller *t, const Choices *c, bool whole) {
    int total = 0, chosen = 0;
    for (int i = 0; i < c->count; i++) total += c->list[i].weight;
    if (t->reading) {
        chosen = recognise(t, c, whole);
    } else { /* 64 random bits modulo a small total differ from uniform by 2^-48 */
        int64_t draw = (int64_t)(rng_bits(t->seed, t->document << 32, t->draws++) % (uint64_t)total);
        while (draw >= c->list[chosen].weight) draw -= c->list[chosen++].weight;
    }
    double mean = 0, square = 0;
    for (int i = 0; i < c->count; i++) {
        if (c->list[i].weight == 0) continue;
        double p = (double)c->list[i].weight / total, cost = -log(p);
        mean += p * cost, square += p * cost * cost;
        if (i == chosen) t->nats += cost;
    }
    t->expected_nats += mean;
    t->variance += square - mean * mean;
    tell(t, c->list[chosen].text);
    return chosen;
}

/* Adds the alternative before + text + after. */
static void add_choice(Choices *c, int weight, const char *before, const char *text, const char *after) {
    if (c->count == CHOICES_MAX) die("more than %d alternatives in one choice", CHOICES_MAX);
    Choice *choice = &c->list[c->count++];
    choice->weight = weight;
    int n = snprintf(choice->text, sizeof choice->text, "%s%s%s", before, text, after);
    if (n >= (int)sizeof choice->text) die("alternative '%s' is too long", choice->text);
}

/* As in a language, some words are common and others rare: the first words of a list have the largest weights. */
static int word_weight(int rank) { return 60 / (rank + 3) + 1; }

/* Chooses one of the words; not those whose bit is set in `taken`. `before` is written before it. */
static int choose_word(Teller *t, const char *before, const char *const *words, int count, unsigned taken,
                       bool whole) {
    Choices c = {.count = 0};
    for (int i = 0; i < count; i++) add_choice(&c, taken >> i & 1 ? 0 : word_weight(i), before, words[i], "");
    return choose_among(t, &c, whole);
}

/* Chooses between two texts, the first with a probability of `percent` per cent; true when it is the first. */
static bool choose_first(Teller *t, int percent, const char *first, const char *second) {
    Choices c = {.count = 0};
    add_choice(&c, percent, first, "", "");
    add_choice(&c, 100 - percent, second, "", "");
    return choose_among(t, &c, true) == 0;
}

/* ---------------------------------------------------------------------------------------------- the words */

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

static const char *const onsets[] = {"Al",  "Ber", "Cor", "Dun", "Ed",  "Fal", "Gar", "Hil",
                                     "Ist", "Jor", "Kel", "Lin", "Mar", "Nor", "Ol",  "Per",
                                     "Ros", "Sel", "Tor", "Ul",  "Vin", "Wil", "Yor", "Zel"};
static const char *const name_endings[] = {"ena", "win",  "itha", "mund", "ola", "dan",  "ise", "bert",
                                           "iva", "ward", "une",  "rick", "eth", "stan", "ara", "fred"};
static const char *const town_starts[] = {"Oak",   "Stone", "Ash",   "Green", "Fox",   "Mill",
                                          "White", "High",  "Elm",   "North", "Wolf",  "Black",
                                          "Long",  "Red",   "South", "Swan",  "Raven", "West"};
static const char *const town_ends[] = {"ham",   "ford", "wick", "field", "bridge", "ton",
                                        "brook", "dale", "bury", "moor",  "stead",  "by"};
static const char *const trades[] = {
    "a baker",  "a smith", "a miller", "a weaver",    "an archer", "a shepherd", "a tailor", "a potter",
    "a hunter", "a mason", "a cook",   "a carpenter", "a fisher",  "a scribe",   "a tanner", "an innkeeper"};
static const char *const adjectives[] = {
    "a copper",  "a silver", "an iron",    "a golden",  "a wooden", "a painted", "an ivory", "a broken",
    "a leather", "a little", "an ancient", "a crystal", "a heavy",  "a crooked", "a velvet", "a woollen"};
static const char *const things[] = {"lantern", "bell",    "key",   "ring",   "cup",   "fiddle",
                                     "mirror",  "basket",  "drum",  "candle", "clock", "blanket",
                                     "saddle",  "whistle", "chest", "compass"};
static const char *const places[] = {"in the cellar", "under the bridge",  "behind the mill",
                                     "by the river",  "in the attic",      "near the well",
                                     "on the hill",   "beside the church", "in the stable",
                                     "at the inn",    "under the old oak", "beyond the orchard"};
static const char *const numbers[] = {"two", "three", "four", "five", "six", "seven"};
/* Pairs of forms: singular, plural. The form of a verb has the same number as that of its subject. */
static const char *const nouns[][2] = {{"king", "kings"},       {"dog", "dogs"},       {"horse", "horses"},
                                       {"fox", "foxes"},        {"child", "children"}, {"goose", "geese"},
                                       {"knight", "knights"},   {"wolf", "wolves"},    {"sailor", "sailors"},
                                       {"crow", "crows"},       {"bishop", "bishops"}, {"thief", "thieves"},
                                       {"sparrow", "sparrows"}, {"mouse", "mice"}};
static const char *const landmarks[][2] = {{"tower", "towers"}, {"river", "rivers"},   {"gate", "gates"},
                                           {"wall", "walls"},   {"garden", "gardens"}, {"cave", "caves"}};
/* Verbs without an object. */
static const char *const alone[][2] = {
    {"sleeps", "sleep"}, {"waits", "wait"}, {"sings", "sing"},   {"laughs", "laugh"}, {"hides", "hide"},
    {"rests", "rest"},   {"runs", "run"},   {"dances", "dance"}, {"weeps", "weep"},   {"shouts", "shout"}};
/* Verbs with an object. */
static const char *const toward[][2] = {{"trusts", "trust"}, {"fears", "fear"}, {"follows", "follow"},
                                        {"knows", "know"},   {"loves", "love"}, {"hates", "hate"},
                                        {"chases", "chase"}, {"helps", "help"}, {"admires", "admire"},
                                        {"watches", "watch"}};
static const char *const deeds[] = {"smiled",      "sang",     "laughed",   "waited for the rain",
                                    "wept",        "slept",    "went home", "danced",
                                    "stood still", "ran away", "fell ill",  "looked up"};

/* ------------------------------------------------------------------------------------- the facts of a story */

enum { PEOPLE_MAX = 4 };

typedef struct {
    char name[16];
    int onset, trade;
    bool man;
} Person;

typedef struct {
    int adjective, noun, owner, place; /* indices of adjectives, things, Story.people, places */
} Thing;

typedef struct {
    Person people[PEOPLE_MAX]; /* (count) */
    Thing things[PEOPLE_MAX];  /* (count) each person begins with one */
    int count;
    char town[20];
    int subject; /* the person that "he" or "she" means now */
} Story;

/* "baker" of "a baker". */
static const char *after_article(const char *words) { return strchr(words, ' ') + 1; }

/* "copper lantern". */
static void tell_thing(Teller *t, const Thing *thing) {
    tell(t, after_article(adjectives[thing->adjective]));
    tell(t, " ");
    tell(t, things[thing->noun]);
}

/* Chooses a person other than number `but` (-1: any person). */
static int choose_person(Teller *t, const Story *s, const char *before, int but) {
    Choices c = {.count = 0};
    for (int i = 0; i < s->count; i++) add_choice(&c, i == but ? 0 : 1, before, s->people[i].name, "");
    return choose_among(t, &c, true);
}

/* Chooses one of an owner's things (owner < 0: of all things); the text is like " copper lantern". */
static int choose_thing(Teller *t, const Story *s, int owner) {
    Choices c = {.count = 0};
    for (int i = 0; i < s->count; i++) {
        const Thing *thing = &s->things[i];
        char text[40];
        snprintf(text, sizeof text, " %s %s", after_article(adjectives[thing->adjective]),
                 things[thing->noun]);
        add_choice(&c, owner < 0 || thing->owner == owner, "", text, "");
    }
    return choose_among(t, &c, true);
}

static bool owns_anything(const Story *s, int person) {
    for (int i = 0; i < s->count; i++)
        if (s->things[i].owner == person) return true;
    return false;
}

/* ------------------------------------------------------------------------------------------ the sentences */

/* "Albert was a baker and kept a copper lantern in the cellar.": the facts about one person. */
static void introduce(Teller *t, Story *s, int who) {
    unsigned onsets_taken = 0, trades_taken = 0, adjectives_taken = 0, nouns_taken = 0;
    /* Two people never have the same first syllable or trade, and two things never the same adjective or noun. So one word
       says which is meant. */
    for (int i = 0; i < who; i++) {
        onsets_taken |= 1u << s->people[i].onset, trades_taken |= 1u << s->people[i].trade;
        adjectives_taken |= 1u << s->things[i].adjective, nouns_taken |= 1u << s->things[i].noun;
    }
    Person *p = &s->people[who];
    Thing *thing = &s->things[who];
    p->onset = choose_word(t, " ", onsets, COUNT(onsets), onsets_taken, false);
    int ending = choose_word(t, "", name_endings, COUNT(name_endings), 0, true);
    p->man = ending % 2 == 1;
    snprintf(p->name, sizeof p->name, "%s%s", onsets[p->onset], name_endings[ending]);
    p->trade = choose_word(t, " was ", trades, COUNT(trades), trades_taken, true);
    tell(t, " and kept");
    thing->adjective = choose_word(t, " ", adjectives, COUNT(adjectives), adjectives_taken, true);
    thing->noun = choose_word(t, " ", things, COUNT(things), nouns_taken, true);
    thing->place = choose_word(t, " ", places, COUNT(places), 0, true);
    thing->owner = who;
    tell(t, ".");
    s->subject = who;
}

/* "Then Albert found the copper lantern in the cellar and put it under the bridge.", from " Albert" on. (In this and the
   following functions, the first words were written by the choice of the kind of sentence: see `openings`.) */
static void move(Teller *t, Story *s) {
    s->subject = choose_person(t, s, " ", -1);
    tell(t, " found the");
    Thing *thing = &s->things[choose_thing(t, s, -1)];
    tell(t, " ");
    tell(t, places[thing->place]);
    thing->place = choose_word(t, " and put it ", places, COUNT(places), 1u << thing->place, true);
    tell(t, ".");
}

/* "As a gift, the copper lantern went from Albert to Corena.", from " copper" on. */
static void give(Teller *t, Story *s) {
    Thing *thing = &s->things[choose_thing(t, s, -1)];
    tell(t, " went from ");
    tell(t, s->people[thing->owner].name);
    thing->owner = choose_person(t, s, " to ", thing->owner);
    tell(t, ".");
    s->subject = thing->owner;
}

/* "She wept and thought of her copper lantern.", from " wept" on. */
static void act(Teller *t, const Story *s) {
    const Person *p = &s->people[s->subject];
    int first = choose_word(t, " ", deeds, COUNT(deeds), 0, true);
    Choices c = {.count = 0};
    add_choice(&c, 5, ".", "", "");
    add_choice(&c, 3, " and then", "", "");
    add_choice(&c, 1, p->man ? " by himself." : " by herself.", "", "");
    add_choice(&c, owns_anything(s, s->subject) ? 4 : 0,
               p->man ? " and thought of his" : " and thought of her", "", "");
    switch (choose_among(t, &c, true)) {
    case 1:
        choose_word(t, " ", deeds, COUNT(deeds), 1u << first, true);
        tell(t, ".");
        break;
    case 3:
        choose_thing(t, s, s->subject);
        tell(t, ".");
        break;
    }
}

/* Chooses a word from a table of pairs. number: 0 singular, 1 plural, -1 either. Returns the grammatical number of the
   chosen word. */
static int choose_form(Teller *t, const char *before, const char *const (*pairs)[2], int count, int number) {
    Choices c = {.count = 0};
    for (int i = 0; i < count; i++)
        for (int form = 0; form < 2; form++)
            if (number < 0 || number == form) add_choice(&c, word_weight(i), before, pairs[i][form], "");
    int chosen = choose_among(t, &c, true);
    return number < 0 ? chosen % 2 : number;
}

/* Adds all words of a table of pairs in one grammatical number. */
static void add_forms(Choices *c, const char *const (*pairs)[2], int count, int number) {
    for (int i = 0; i < count; i++) add_choice(c, word_weight(i), " ", pairs[i][number], "");
}

/* " dogs that the king near the towers trusts sleep": a noun, perhaps something about it, and one of `verbs`, which
   agrees with the noun. depth: how many clauses this one is nested in. */
static void agree(Teller *t, const char *const (*verbs)[2], int count, int depth) {
    int number = choose_form(t, " ", nouns, COUNT(nouns), -1);
    Choices c = {.count = 0};
    add_choice(&c, 25, " near the", "", "");
    add_choice(&c, depth < 3 ? 50 >> depth : 0, " that the", "", "");
    add_forms(&c, verbs, count, number);
    int chosen = choose_among(t, &c, true);
    if (chosen > 1) return;
    if (chosen == 0)
        choose_form(t, " ", landmarks, COUNT(landmarks), -1); /* the verb does not agree with this noun */
    else
        agree(t, toward, COUNT(toward), depth + 1);
    choose_form(t, " ", verbs, count, number);
}

/* "The geese sleep whenever the crow sings.", from " geese" on. */
static void describe(Teller *t) {
    agree(t, alone, COUNT(alone), 0);
    while (choose_first(t, 20, " whenever the", ".")) agree(t, alone, COUNT(alone), 1);
}

/* What `speaker` says, with its quotation marks. It may quote other people. depth: how many quotations this one is nested
   in. */
static void speech(Teller *t, const Story *s, int speaker, int depth) {
    const char *opening = depth % 2 ? "'" : "\"", *closing = depth == 0 ? ".\"" : opening;
    for (const char *before = opening;; before = " and ") {
        Choices c = {.count = 0};
        add_choice(&c, 3, before, "I am", "");
        add_choice(&c, owns_anything(s, speaker) ? 4 : 0, before, "my", "");
        add_choice(&c, 3, before, "the", "");
        for (int i = 0; i < s->count; i++)
            add_choice(&c, depth < 2 && i != speaker ? 1 : 0, before, s->people[i].name, "");
        int chosen = choose_among(t, &c, true);
        if (chosen == 0) {
            tell(t, " ");
            tell(t, trades[s->people[speaker].trade]);
        } else if (chosen < 3) {
            const Thing *thing = &s->things[choose_thing(t, s, chosen == 1 ? speaker : -1)];
            tell(t, " is ");
            tell(t, places[thing->place]);
        } else {
            tell(t, " said, ");
            speech(t, s, chosen - 3, depth + 1);
        }
        if (!choose_first(t, 25, ",", closing)) return;
    }
}

/* "Where was the copper lantern? It was under the bridge.", from " copper" on. The answer follows from the text before. */
enum { ASK_WHERE, ASK_OWNER, ASK_TRADE };
static void ask(Teller *t, Story *s, int question) {
    if (question == ASK_TRADE) {
        Choices c = {.count = 0};
        for (int i = 0; i < s->count; i++)
            add_choice(&c, 1, " ", after_article(trades[s->people[i].trade]), "");
        s->subject = choose_among(t, &c, true);
        tell(t, "? It was ");
        tell(t, s->people[s->subject].name);
        tell(t, ".");
        return;
    }
    const Thing *thing = &s->things[choose_thing(t, s, -1)];
    if (question == ASK_WHERE) {
        tell(t, "? It was ");
        tell(t, places[thing->place]);
    } else {
        tell(t, "? ");
        tell(t, s->people[thing->owner].name);
        tell(t, " did");
        s->subject = thing->owner;
    }
    tell(t, ".");
}

/* "Up in the tower the bell rang three times: ding, ding, ding.", from " three" on. */
static void ring(Teller *t) {
    int times = choose_word(t, " ", numbers, COUNT(numbers), 0, true) + 2;
    tell(t, " times: ding");
    while (--times) tell(t, ", ding");
    tell(t, ".");
}

/* "This is the end of the tale of Oakham: Albert the baker had the copper lantern; ...", from " of Oakham" on. */
static void conclude(Teller *t, const Story *s) {
    tell(t, " of ");
    tell(t, s->town);
    tell(t, ":");
    for (int who = 0; who < s->count; who++) {
        tell(t, who ? "; " : " ");
        tell(t, s->people[who].name);
        tell(t, " the ");
        tell(t, after_article(trades[s->people[who].trade]));
        tell(t, owns_anything(s, who) ? " had" : " had nothing");
        bool more = false;
        for (int i = 0; i < s->count; i++) {
            if (s->things[i].owner != who) continue;
            tell(t, more ? " and the " : " the ");
            tell_thing(t, &s->things[i]);
            more = true;
        }
    }
    tell(t, ".\nThe end.\n");
}

/* How sentences begin. The first words of a sentence say of which kind it is. */
enum { MOVE, GIVE, DESCRIBE, RING, WHERE, OWNER, TRADE, END, ACT, SAY };
static const struct {
    int kind, weight;
    const char *text;
} openings[] = {
    {MOVE, 8, " Then"},
    {MOVE, 6, " Soon after,"},
    {MOVE, 4, " At dusk,"},
    {MOVE, 2, " Years later,"},
    {GIVE, 6, " As a gift, the"},
    {DESCRIBE, 16, " The"},
    {RING, 4, " Up in the tower the bell rang"},
    {WHERE, 6, "\nWhere was the"},
    {OWNER, 4, "\nWho owned the"},
    {TRADE, 4, "\nWho was the"},
    {END, 7, "\nThis is the end of the tale"},
};

/* Writes or reads one sentence; returns false after the last one of the story. */
static bool sentence(Teller *t, Story *s) {
    Choices c = {.count = 0};
    for (int i = 0; i < COUNT(openings); i++) add_choice(&c, openings[i].weight, openings[i].text, "", "");
    add_choice(&c, 16, s->people[s->subject].man ? " He" : " She", "", "");
    for (int i = 0; i < s->count; i++) add_choice(&c, 16 / s->count, " ", s->people[i].name, " said,");
    int chosen = choose_among(t, &c, true), speaker = chosen - COUNT(openings) - 1;
    int kind = chosen < COUNT(openings) ? openings[chosen].kind : speaker < 0 ? ACT : SAY;
    switch (kind) {
    case MOVE: move(t, s); break;
    case GIVE: give(t, s); break;
    case DESCRIBE: describe(t); break;
    case RING: ring(t); break;
    case WHERE: ask(t, s, ASK_WHERE); break;
    case OWNER: ask(t, s, ASK_OWNER); break;
    case TRADE: ask(t, s, ASK_TRADE); break;
    case END: conclude(t, s); break;
    case ACT: act(t, s); break;
    case SAY:
        tell(t, " ");
        speech(t, s, speaker, 0);
        s->subject = speaker;
        break;
    }
    return kind != END;
}

/* Writes or reads one story. */
static void story(Teller *t) {
    static const char *const crowds[] = {"two", "three", "four"};
    Story s = {.count = 0};
    int start = choose_word(t, "In the town of ", town_starts, COUNT(town_starts), 0, false);
    int end = choose_word(t, "", town_ends, COUNT(town_ends), 0, true);
    snprintf(s.town, sizeof s.town, "%s%s", town_starts[start], town_ends[end]);
    int count = choose_word(t, " there lived ", crowds, COUNT(crowds), 0, true) + 2;
    tell(t, " friends.");
    for (; s.count < count; s.count++) introduce(t, &s, s.count);
    while (sentence(t, &s)) {}
}

/* -------------------------------------------------------------------------------------------- the program */

static const char separator[] = "<|endoftext|>\n";

typedef struct {
    int64_t documents, bytes; /* of the stories, without the separators */
} Corpus;

/* Writes stories to a file until they have so many bytes. */
static Corpus write_stories(Teller *t, int64_t bytes, const char *path) {
    Corpus corpus = {0, 0};
    FILE *file = check_fopen(path, "wb", "name another file with --out=FILE");
    for (; corpus.bytes < bytes; corpus.documents++) {
        if (corpus.documents) check_fwrite(separator, 1, strlen(separator), file, path);
        t->length = 0, t->draws = 0, t->document = (uint64_t)corpus.documents;
        story(t);
        check_fwrite(t->text, 1, t->length, file, path);
        corpus.bytes += (int64_t)t->length;
    }
    check_fclose(file, path);
    return corpus;
}

/* Reads all stories of a file, which must be ones that this program wrote. */
static Corpus read_stories(Teller *t, const char *path) {
    Corpus corpus = {0, 0};
    free(t->text);
    t->text =
        check_file_read(path, FILE_STREAM, FILE_NO_LIMIT, &t->length, "name a file that ./grammar wrote");
    t->capacity = t->length;
    t->reading = true, t->path = path;
    for (; t->at < t->length || corpus.documents == 0; corpus.documents++) {
        if (corpus.documents) tell(t, separator);
        size_t start = t->at;
        story(t);
        corpus.bytes += (int64_t)(t->at - start);
    }
    return corpus;
}

/* Prints the numbers of FILE.json. seed < 0: the seed is not known, because stories were read. */
static void print_figures(FILE *file, const Teller *t, const Corpus *corpus, int64_t seed) {
    fprintf(file, "{");
    if (seed >= 0) fprintf(file, "\"seed\": %lld, ", (long long)seed);
    fprintf(file,
            "\"documents\": %lld, \"bytes\": %lld, \"nats\": %.6f, \"nats_per_byte\": %.9f, "
            "\"expected_nats\": %.6f, \"deviation\": %.6f}\n",
            (long long)corpus->documents, (long long)corpus->bytes, t->nats, t->nats / (double)corpus->bytes,
            t->expected_nats, sqrt(t->variance));
}

typedef struct {
    int64_t bytes, seed;
    const char *out, *score;
} GrammarOptions;

static const Option grammar_options[] = {
    {"Stories", "bytes", OPTION_INT, offsetof(GrammarOptions, bytes), "4000000", 1, 1e12, "",
     "write whole stories until they have this many bytes", false},
    {"Stories", "seed", OPTION_INT, offsetof(GrammarOptions, seed), "1", 0, 9e15, "", "decides every choice",
     false},
    {"Stories", "out", OPTION_STRING, offsetof(GrammarOptions, out), "", 0, 0, "FILE",
     "the file for the text; its exact entropy is written to the same name with .json instead of .txt",
     false},
    {"Stories", "score", OPTION_STRING, offsetof(GrammarOptions, score), "", 0, 0, "FILE",
     "read these stories instead of writing some, and print their exact probability", false},
};

int main(int argc, char **argv) {
    program_begin();
    static GrammarOptions options;
    OptionSet set = options_begin("grammar", "./grammar --out=FILE [options] | --score=FILE", grammar_options,
                                  COUNT(grammar_options), &options, NULL);
    if (options_parse(&set, argc, argv) > 0) options_fail(&set, "unexpected argument '%s'", argv[0]);
    Teller teller = {.seed = (uint64_t)options.seed};
    if (*options.score) {
        Corpus corpus = read_stories(&teller, options.score);
        print_figures(stdout, &teller, &corpus, -1);
    } else if (*options.out) {
        Corpus corpus = write_stories(&teller, options.bytes, options.out);
        size_t stem = strlen(options.out);
        char *path = check_calloc(stem + 6);
        if (stem > 4 && strcmp(options.out + stem - 4, ".txt") == 0) stem -= 4;
        sprintf(path, "%.*s.json", (int)stem, options.out);
        FILE *file = check_fopen(path, "w", "");
        print_figures(file, &teller, &corpus, options.seed);
        check_fclose(file, path);
        printf("%s: %lld stories, %lld bytes, %.4f nats a byte\n", options.out, (long long)corpus.documents,
               (long long)corpus.bytes, teller.nats / (double)corpus.bytes);
        free(path);
    } else {
        options_fail(&set, "name a file: --out=FILE");
    }
    free(teller.text);
    return 0;
}
