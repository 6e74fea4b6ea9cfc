# site_check.awk FILE.html...: checks all pages of a site, run in its folder after site_paths.awk. Prints a line for each link, anchor
# and picture that leads nowhere, and for each thing that a page would load from the network; the exit code is 1 if there is one.

function mistake(text) { print text; mistakes++ }

# Attributes are only in tags: in the text, quotation marks are written &quot;.
{
    line = $0
    while (match(line, / (id|href|src)="[^"]*"/)) {
        value = substr(line, RSTART + 1, RLENGTH - 2)
        before = substr(line, 1, RSTART)
        line = substr(line, RSTART + RLENGTH)
        name = value
        sub(/=.*/, "", name); sub(/^[a-z]*="/, "", value)
        if (name == "id") ids[FILENAME "#" value] = 1
        else if (value ~ /^([a-z]+:|\/\/)/) {
            if (name == "src" || before ~ /<link[^>]*$/) mistake(FILENAME ": needs the network to be shown: " value)
        } else {
            used[++count] = value
            where[count] = FILENAME
        }
    }
}

END {
    for (i = 1; i <= count; i++) {
        fragment = index(used[i], "#") ? substr(used[i], index(used[i], "#")) : ""
        target = substr(used[i], 1, length(used[i]) - length(fragment))
        target = target == "" ? where[i] : resolve(where[i], target)
        if (!exists(target)) mistake(where[i] ": there is no file for " used[i])
        else if (fragment != "" && !((target fragment) in ids)) mistake(where[i] ": there is no anchor for " used[i])
    }
    exit mistakes > 0
}
