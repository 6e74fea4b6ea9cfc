#!/usr/bin/env bash
# Predicts the time of a training step of c4-301m with 1024 sequences of 1024 tokens on 1 to 1024 nodes, one rank each:
# the tables of docs/scaling.md, which explains the model. Every number can be given:
#
#   scripts/scaling_model.sh                                             CPU nodes, 100 Gbit/s
#   TOKENS_PER_S=180000 GBIT=400 scripts/scaling_model.sh                one fast GPU a node
#   WIRE=2 ...                                                           gradients travel as bfloat16
set -euo pipefail

exec awk -v rate="${TOKENS_PER_S:-10000}" `# of one node computing alone` \
    -v gbit="${GBIT:-100}" -v efficiency="${EFFICIENCY:-0.8}" `# of the link, and the share of it that TCP and MPI reach` \
    -v latency="${LATENCY_US:-50}" -v message="${MESSAGE_US:-5}" `# one way; what a message costs a core` \
    -v wire="${WIRE:-4}" -v batch="${BATCH:-1024}" -v micro_most="${MICRO:-8}" '
BEGIN {
    T = 1024; layers = 32
    in_layers = layers * (4 * 1024 ^ 2 + 2 * 1024 * 2048 + 2 * 1024); embedding = 32000 * 1024 + 1024
    bucket = 4194304
    bandwidth = gbit * 1e9 / 8 * efficiency
    printf "%.0f tokens/s a node, %g Gbit/s (%.0f %% reached), %g us; gradients of %d bytes\n\n", rate, gbit, 100 * efficiency, latency, wire
    printf "| nodes | sequences each | compute s | gradients s | hidden | weights s | step s | tokens/s | efficiency |\n"
    printf "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    for (n = 1; n <= 1024; n *= 2) {
        each = batch / n
        micro = each < micro_most ? each : micro_most
        compute = each * T / rate
        backward = 2 / 3 * micro * T / rate                      # of the last micro-step: what can hide gradients
        sums_layers = move(in_layers, wire); sums_embedding = move(embedding, wire)
        hides = sums_layers < backward * (layers - 1) / layers ? sums_layers : backward * (layers - 1) / layers
        weights = move(in_layers + embedding, 4)
        agree = n > 1 ? (each / micro + 3) * log(n) / log(2) * latency * 1e-6 : 0 # stop flags, loss, norm
        step = compute + sums_layers - hides + sums_embedding + weights + agree
        if (n == 1) alone = step
        sums = sums_layers + sums_embedding
        printf "| %d | %g | %.3f | %.3f | %s | %.3f | %.3f | %.0f | %.0f %% |\n", n, each, compute, sums,
            (n > 1 ? sprintf("%.0f %%", 100 * hides / sums) : ""), weights, step, batch * T / step, 100 * alone / (n * step)
    }
}
# Seconds in which a node sends (and at the same time receives) its share of so many numbers, in buckets, four of them
# on their way at once, each a message to and from every other node.
function move(count, bytes,    buckets) {
    if (n == 1) return 0
    buckets = count / bucket; buckets = buckets > int(buckets) ? int(buckets) + 1 : buckets
    return count * bytes * (n - 1) / n / bandwidth + buckets * (2 * (n - 1) * message + latency / 4) * 1e-6
}'
