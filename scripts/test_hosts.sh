#!/usr/bin/env bash
# Trains one small model on several hosts over TCP and on one host, and compares the losses. The hosts are network namespaces
# of this machine that are connected by a bridge. Their messages go through real sockets, and the rate and the latency of the
# links can be set. Needs root, iproute2 and Open MPI.
#
#   scripts/test_hosts.sh                        two hosts, links without a limit
#   HOSTS=4 scripts/test_hosts.sh                four hosts
#   RATE=10gbit DELAY=50us scripts/test_hosts.sh links of that rate, on which each packet is delayed (by tc, in both directions)
#   TRAIN='--layers=2 --batch=4' ...             options of ./train_gpt instead of those of the small model; DATA=folder
#   KEEP=1 ...                                   keeps the runs in build/hosts
set -euo pipefail
export LC_ALL=C # numbers have a decimal point, whatever the user's language
cd "$(dirname "$0")/.."

HOSTS=${HOSTS:-2}
RATE=${RATE:-}
DELAY=${DELAY:-}
DATA=${DATA:-}
WORK=build/hosts
TRAIN=${TRAIN:---layers=2 --heads=2 --head-dim=16 --embd=64 --mlp-hidden=128 --seq-len=64 --vocab-size=512 --steps=30 --warmup=5 --val-every=15 --val-tokens=1024}
BATCH=${BATCH:-$((12 / HOSTS * HOSTS))} # sequences in a step, of all hosts together
THREADS=${THREADS:-1}
SUBNET=10.77.0

fail() { echo "error: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "network namespaces need root; run it with sudo"
command -v ip > /dev/null || fail "no 'ip' command; install iproute2"
mpirun --version 2> /dev/null | grep -q 'Open MPI' || fail "no Open MPI; install openmpi-bin and libopenmpi-dev"
[ -x train_gpt ] || fail "no ./train_gpt; run make first"

node() { echo "gpt-node$1"; }
cleanup() {
    for i in $(seq "$HOSTS"); do ip netns del "$(node "$i")" 2> /dev/null || true; done
    ip netns del gpt-switch 2> /dev/null || true
}
trap cleanup EXIT
cleanup

# One more namespace is the switch; a pair of virtual interfaces connects each host to it.
ip netns add gpt-switch
ip -n gpt-switch link add bridge0 type bridge
ip -n gpt-switch link set bridge0 up
for i in $(seq "$HOSTS"); do
    ip netns add "$(node "$i")"
    ip link add eth0 netns "$(node "$i")" type veth peer name "port$i" netns gpt-switch
    ip -n gpt-switch link set "port$i" master bridge0 up
    ip -n "$(node "$i")" addr add "$SUBNET.$i/24" dev eth0
    ip -n "$(node "$i")" link set eth0 up
    ip -n "$(node "$i")" link set lo up
    if [ -n "$DELAY" ]; then
        ip netns exec "$(node "$i")" tc qdisc add dev eth0 root netem delay "$DELAY" ${RATE:+rate "$RATE"} limit 100000 ||
            fail "this kernel has no netem (CONFIG_NET_SCH_NETEM); leave out DELAY"
    elif [ -n "$RATE" ]; then
        ip netns exec "$(node "$i")" tc qdisc add dev eth0 root tbf rate "$RATE" burst 2mb latency 50ms
    fi
done

# mpirun calls this script instead of ssh, as AGENT ADDRESS COMMAND...
mkdir -p "$WORK"
AGENT=$PWD/$WORK/agent
cat > "$AGENT" << END
#!/bin/sh
node=gpt-node\${1##*.}
shift
exec ip netns exec \$node unshare --uts sh -c "hostname \$node; \$*"
END
chmod +x "$AGENT"

if [ -z "$DATA" ]; then
    DATA=$WORK/data
    [ -e "$DATA/tokenizer.json" ] || {
        if ! [ -x grammar ] || ! [ -x prepare ]; then fail "no ./grammar and ./prepare; run make first, or give DATA=folder"; fi
        ./grammar --bytes=1000000 --out="$WORK/stories.txt" > /dev/null
        ./prepare --out="$DATA" --vocab=512 "$WORK/stories.txt" > /dev/null
    }
fi

address=$(for i in $(seq "$HOSTS"); do printf '%s%s.%d:1' "$([ "$i" -gt 1 ] && echo ,)" "$SUBNET" "$i"; done)
read -ra options <<< "$TRAIN"
one=("--batch=$BATCH") many=("--batch=$((BATCH / HOSTS))")
rm -rf "$WORK/one" "$WORK/many"
./train_gpt "${options[@]}" "${one[@]}" --threads="$THREADS" --data="$DATA" --out="$WORK/one" > "$WORK/one.txt" 2>&1 ||
    { tail -5 "$WORK/one.txt"; fail "one host could not train"; }
ip netns exec "$(node 1)" unshare --uts sh -c 'hostname gpt-node1; exec "$@"' sh \
    timeout 600 mpirun --allow-run-as-root --bind-to none --host "$address" \
    --mca plm_rsh_agent "$AGENT" --mca plm_rsh_no_tree_spawn 1 \
    --mca btl tcp,self --mca btl_tcp_if_include "$SUBNET.0/24" --mca oob_tcp_if_include "$SUBNET.0/24" \
    ./train_gpt "${options[@]}" "${many[@]}" --threads="$THREADS" --data="$DATA" --out="$WORK/many" > "$WORK/many.txt" 2>&1 ||
    { tail -20 "$WORK/many.txt"; fail "$HOSTS hosts could not train"; }
grep -A8 '^ranks' "$WORK/many.txt" | grep -E '^ranks|gpt-node' || true

# Prints the largest relative difference of the losses, and how long a step took.
awk -v hosts="$HOSTS" '
    function value(key) { return match($0, "\"" key "\": [-0-9.e+]+") ? substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) + 0 : "" }
    FNR == 1 { file++ }
    /"loss"/ { step = value("step"); loss[file, step] = value("loss"); seconds[file] = value("seconds"); last = step
               if (step == 5) early[file] = value("seconds")
               if ((h = value("comm_overlap")) != "") { hidden += h; count++ } }
    END {
        for (s = 1; s <= last; s++) {
            d = loss[2, s] / loss[1, s] - 1; d = d < 0 ? -d : d
            if (d > apart) apart = d
            if (loss[1, s] == "" || loss[2, s] == "") missing = 1
        }
        printf "a step: %.1f ms on one host, %.1f ms on %d; %.0f %% of the communication hidden\n",
            1e3 * (seconds[1] - early[1]) / (last - 5), 1e3 * (seconds[2] - early[2]) / (last - 5), hosts, 100 * hidden / (count ? count : 1)
        printf "losses of %d steps: one host and %d differ by at most %.2g (relative)\n", last, hosts, apart
        if (missing || last < 6 || apart > 1e-5) { print "FAILED: expected at most 1e-5"; exit 1 }
        print "passed"
    }' "$WORK/one/log.jsonl" "$WORK/many/log.jsonl"
[ -n "${KEEP:-}" ] || rm -rf "$WORK/one" "$WORK/many"
