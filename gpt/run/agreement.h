/* agreement.h: compares what must be the same on all ranks. Ranks with different options would train a model that none
   of them describes, or wait for each other forever; ranks with different data would train on samples that no single
   process would choose.

   check_options_agree(set)   if an option differs between ranks, every rank ends with a message that names the first
                              such option. Options with the flag OPTION_OWN may differ
   check_data_agree(run)      dies when the fingerprint of the data (run->data) differs
   Every rank calls each of these. */
#ifndef GPT_RUN_AGREEMENT_H
#define GPT_RUN_AGREEMENT_H

#include "../dist/parallel.h"
#include "../io/checksum.h"
#include "run.h"

/* The first rank whose number differs from that of rank 0; the number of ranks when all are the same. */
static inline int first_different_rank(uint64_t mine) {
    const int ranks = parallel_ranks();
    uint64_t *all = check_calloc((size_t)ranks * sizeof *all);
    parallel_collect(all, &mine, sizeof mine);
    int rank = 1;
    while (rank < ranks && all[rank] == all[0]) rank++;
    free(all);
    return rank;
}

/* Dies with the value of an option on rank 0 and on rank `other`. */
static inline void die_of_different_option(const OptionSet *set, const Option *option, int other) {
    enum { SHOWN = 200 };
    char text[64], mine[SHOWN] = "";
    snprintf(mine, sizeof mine, "%s", options_text(set, option, text));
    char(*all)[SHOWN] = check_calloc((size_t)parallel_ranks() * sizeof *all);
    parallel_collect(all, mine, sizeof mine);
    options_fail(
        set, "the ranks do not agree: --%s is %s on rank 0, %s on rank %d; start all with the same options",
        option->name, *all[0] ? all[0] : "empty", *all[other] ? all[other] : "empty", other);
}

static inline void add_option(Checksum *sum, const OptionSet *set, const Option *option) {
    char text[64];
    const char *value = options_text(set, option, text);
    checksum_add(sum, value, strlen(value) + 1);
}

/* One checksum of all options is compared first, and the options one by one only when it differs. */
static inline void check_options_agree(const OptionSet *set) {
    const int ranks = parallel_ranks();
    if (ranks == 1) return;
    Checksum all = checksum_begin();
    for (int i = 0; i < set->count; i++)
        if (!(set->table[i].flags & OPTION_OWN)) add_option(&all, set, &set->table[i]);
    if (first_different_rank(checksum_end(&all)) == ranks) return;
    for (int i = 0; i < set->count; i++) {
        if (set->table[i].flags & OPTION_OWN) continue;
        Checksum one = checksum_begin();
        add_option(&one, set, &set->table[i]);
        const int other = first_different_rank(checksum_end(&one));
        if (other < ranks) die_of_different_option(set, &set->table[i], other);
    }
}

static inline void check_data_agree(const Run *run) {
    if (parallel_ranks() == 1) return;
    const int other = first_different_rank(fingerprint_sum(&run->data));
    if (other == parallel_ranks()) return;
    die("the ranks do not agree: --data=%s holds other data (or another tokenizer.json) on rank %d than on "
        "rank 0; give all hosts the same files",
        run->options->data, other);
}

#endif
