#!/usr/bin/env bash
# Predicts the time of a training step of c4-301m on many machines. It prints the tables of docs/scaling.md, which explains the
# two models. Each number of the models is a variable that can be set.
#
#   scripts/scaling_model.sh                                             1 to 1024 CPU nodes, one rank each, 100 Gbit/s
#   TOKENS_PER_S=180000 GBIT=400 scripts/scaling_model.sh                one fast GPU a node
#   WIRE=2 ...                                                           gradients are sent as bfloat16
#   scripts/scaling_model.sh gpus                                        1, 8 and 64 GPUs, eight a node, NCCL
#   TOKENS_PER_S=250000 scripts/scaling_model.sh gpus                    with another measured rate; the settings are below
set -euo pipefail
export LC_ALL=C # numbers have a decimal point, whatever the user's language

gpus() {
    awk -v rate="${TOKENS_PER_S:-243400}" -v sequences="${SEQUENCES:-32}" `# measured: the rate of one GPU, with so many sequences in a micro-step` \
        -v backward="${BACKWARD:-0.605}" -v update_ms="${UPDATE_MS:-2.16}" `# share of backward in the time of a step; time of AdamW for all weights` \
        -v round_ms="${ROUND_MS:-0.45}" `# rounding received weights to bf16: 6 bytes a weight at 4.1 TB/s` \
        -v nvlink="${NVLINK_GBS:-350}" -v network="${NETWORK_GBS:-45}" `# GB/s that a GPU sends while it receives at the same rate` \
        -v hop_us="${HOP_US:-1.5}" -v far_us="${FAR_US:-5}" -v launch_us="${LAUNCH_US:-5}" `# latency of a message within a node and between nodes; start of a collective` \
        -v taken="${TAKEN:-0.12}" `# share of the processors that NCCL uses during backward: 16 of 132` \
        -v per_node="${GPUS_A_NODE:-8}" -v counts="${GPUS:-1 8 64}" -v micro_steps="${MICRO_STEPS:-1 4}" '
    BEGIN {
        T = 1024; layers = 32
        layer = 4 * 1024 ^ 2 + 2 * 1024 * 2048 + 2 * 1024; layer_buckets = 3
        embedding = 32000 * 1024 + 1024; embedding_buckets = 8
        printf "%.0f tokens/s a GPU with micro-steps of %d sequences, NVLink %g GB/s, network %g GB/s a GPU\n\n", rate, sequences, nvlink, network
        printf "| GPUs | micro-steps | sequences a step | rings | compute ms | gradients ms | hidden | weights ms | step ms | tokens/s | efficiency |\n"
        printf "| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        choices = split(micro_steps, steps, " "); sizes = split(counts, count, " ")
        for (m = 1; m <= choices; m++)
            for (i = 1; i <= sizes; i++) {
                n = count[i] + 0
                all = per_node * network; if (n <= per_node || nvlink < all) all = nvlink
                row(steps[m], n > per_node ? "through all cards" : n > 1 ? "NVLink" : "", all)
                if (n > per_node) row(steps[m], "through one card", network)
            }
    }
    function row(k, rings, gbs,    step, micro, sums, last, under, hides, more, update, weights) {
        bandwidth = gbs
        micro = 1000 * sequences * T / rate - update_ms      # forward, loss, backward
        sums = move(layers * layer, layers * layer_buckets)  # of the layers, in the order of backward
        last = move(embedding, embedding_buckets)            # complete only when backward has ended
        under = backward * (micro + update_ms) * (layers - 1) / layers
        hides = sums < under ? sums : under
        more = taken * hides                                 # backward has fewer processors during that time
        update = update_ms / n
        weights = move(layers * layer + embedding, layers * layer_buckets + embedding_buckets)
        step = k * micro + more + sums - hides + last + (weights > update ? weights : update) + (n > 1 ? round_ms : 0)
        if (n == 1) alone[k] = step
        printf "| %d | %d | %d | %s | %.1f | %.1f | %s | %.1f | %.1f | %.0f | %s |\n", n, k, n * k * sequences, rings, k * micro + update,
            sums + last, (n > 1 ? sprintf("%.0f %%", 100 * hides / (sums + last)) : ""), weights, step,
            1000 * n * k * sequences * T / step, (k in alone) ? sprintf("%.0f %%", 100 * alone[k] / step) : "-"
    }
    # Milliseconds of ring collectives over so many floats in so many buckets, one after the other.
    function move(floats, buckets,    far) {
        if (n == 1) return 0
        far = n > per_node ? n / per_node : 0
        return 1e-6 * floats * 4 * (n - 1) / n / bandwidth + 1e-3 * buckets * (launch_us + far * far_us + (n - 1 - far) * hop_us)
    }'
}

case ${1:-} in
'') ;;
gpus)
    gpus
    exit
    ;;
*)
    echo "usage: scripts/scaling_model.sh [gpus]" >&2
    exit 2
    ;;
esac
exec awk -v rate="${TOKENS_PER_S:-10000}" `# tokens/s of one node alone` \
    -v gbit="${GBIT:-100}" -v efficiency="${EFFICIENCY:-0.8}" `# bandwidth of the link, and the share of it that TCP and MPI reach` \
    -v latency="${LATENCY_US:-50}" -v message="${MESSAGE_US:-5}" `# latency in one direction; time that a core needs for a message` \
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
        backward = 2 / 3 * micro * T / rate                      # backward of the last micro-step, which can hide gradients
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
# Seconds in which a node sends its part of so many numbers, and at the same time receives as much. The numbers are in
# buckets, of which four are exchanged at the same time; a bucket is a message to and from every other node.
function move(count, bytes,    buckets) {
    if (n == 1) return 0
    buckets = count / bucket; buckets = buckets > int(buckets) ? int(buckets) + 1 : buckets
    return count * bytes * (n - 1) / n / bandwidth + buckets * (2 * (n - 1) * message + latency / 4) * 1e-6
}'
