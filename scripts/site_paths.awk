# site_paths.awk: functions about paths, for site.awk and site_check.awk.

# The path of `target`, which is relative to the file `from`, from the root.
function resolve(from, target,    path) {
    path = from
    sub(/[^\/]*$/, "", path)
    path = path target
    while (sub(/\/\.\//, "/", path)) {}
    sub(/^\.\//, "", path)
    while (sub(/[^\/]+\/\.\.\//, "", path)) {}
    return path
}

# Whether there is a file at the path, which is inside of the root: what else a machine has must not change the site.
function exists(path,    line) {
    if (!(path in known)) {
        known[path] = path !~ /^(\/|\.\.\/|$)|\/$/ && (getline line < path) >= 0
        close(path)
    }
    return known[path]
}
