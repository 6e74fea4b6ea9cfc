# site.awk: makes one page of the site from the HTML that cmark-gfm made of a Markdown file, or from a file of source code.
# scripts/site.sh calls it after site_paths.awk, with these variables:
#
#   page               path of the Markdown or source file, from the root of the repository
#   kind               page or source
#   pages              a file with a line for each page of the site: group, path and title, with tabs between them
#   sources, pictures  files to which the paths of the files that the page names are appended

# ---------------------------------------------------------------------------------------------------- paths

function html_path(path) {
    sub(/README\.md$/, "index.md", path)
    sub(/\.md$/, ".html", path)
    return path
}

function is_source(path) { return path ~ /\.(c|h|cu|cuh|sh|py|csv|awk|css)$/ || path ~ /(^|\/)(Makefile|LICENSE|Containerfile|run)$/ }

# A link of a page as the site has it: to a page, to a source file's page, or as it is.
function link(target,    parts, path) {
    if (target ~ /^[a-zA-Z]+:/ || target ~ /^#/) return target
    split(target, parts, "#")
    path = resolve(page, parts[1])
    if (is_source(path) && exists(path)) {
        print path >> sources
        parts[1] = parts[1] ".html"
    }
    return html_path(parts[1]) (parts[2] != "" ? "#" parts[2] : "")
}

# ----------------------------------------------------------------------------------- the text of a page

function escape(text) {
    gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text); gsub(/"/, "\\&quot;", text)
    return text
}

# The anchor that GitHub gives a heading: its text in small letters, without punctuation, with - for spaces.
function anchor(heading) {
    gsub(/<[^>]*>/, "", heading)
    gsub(/&[a-z]+;/, "", heading)
    heading = tolower(heading)
    gsub(/[^a-z0-9 _\200-\377-]/, "", heading)
    gsub(/ /, "-", heading)
    return heading (anchors[heading]++ ? "-" anchors[heading] - 1 : "")
}

# Code that may be broken between its words, but not after the hyphens of an option that fits into a line.
function unbroken(text,    words, n, i, out) {
    n = split(text, words, " ")
    for (i = 1; i <= n; i++) out = out (i > 1 ? " " : "") (words[i] ~ /-/ && length(words[i]) < 28 ? "<span>" words[i] "</span>" : words[i])
    return out
}

# A name of a file in the text, such as `laser.h`, is a link to the file; the name is relative to the page or to the root.
function code(text,    path) {
    if (is_source(text) && text ~ /^[A-Za-z0-9_.\/-]+$/) {
        path = resolve(page, text)
        if (!exists(path)) path = text
        if (exists(path)) {
            print path >> sources
            return "<a href=\"" root path ".html\"><code>" text "</code></a>"
        }
    }
    return (length(text) < 28 ? "<code class=\"short\">" text : "<code>" unbroken(text)) "</code>"
}

# A line outside of blocks of code: links and pictures lead into the site.
function inline(line,    out, tag, target) {
    while (match(line, /<a href="[^"]*"|<\/a>|<img src="[^"]*"|<code>[^<]*<\/code>/)) {
        tag = substr(line, RSTART, RLENGTH)
        out = out substr(line, 1, RSTART - 1)
        line = substr(line, RSTART + RLENGTH)
        target = tag
        sub(/^[^"]*"/, "", target); sub(/"$/, "", target)
        if (tag ~ /^<a /) {
            in_link = 1
            tag = "<a href=\"" link(target) "\""
        } else if (tag == "</a>") {
            in_link = 0
        } else if (tag ~ /^<img/) {
            if (target !~ /^[a-z]+:/) print resolve(page, target) >> pictures
        } else if (!in_link) {
            gsub(/^<code>|<\/code>$/, "", tag)
            tag = code(tag)
        }
        out = out tag
    }
    return out line
}

function heading(line,    level, text, id) {
    level = substr(line, 3, 1)
    text = substr(line, 5, length(line) - 9)
    id = anchor(text)
    if (level == 2) sections = sections "<li><a href=\"#" id "\">" text "</a></li>\n"
    return "<h" level " id=\"" id "\">" inline(text) " <a class=\"anchor\" href=\"#" id "\" aria-label=\"Link to this section\">#</a></h" level ">"
}

# --------------------------------------------------------------------------------------- colours of code

# A line of C whose characters are escaped. The variable in_comment lasts from line to line.
function c_line(line,    out, token, end) {
    if (!in_comment && match(line, /^ *# *[a-z]+/)) {
        out = "<b>" substr(line, 1, RLENGTH) "</b>"
        line = substr(line, RLENGTH + 1)
    }
    while (line != "") {
        if (in_comment) {
            end = index(line, "*/")
            in_comment = !end
            token = end ? substr(line, 1, end + 1) : line
            out = out "<i>" token "</i>"
            line = substr(line, length(token) + 1)
            continue
        }
        if (!match(line, /\/\*|\/\/.*|&quot;([^&\\]|\\.|&[lga][a-z]*;)*&quot;|'(\\.|[^'\\])[^']*'|[A-Za-z_][A-Za-z0-9_]*/)) break
        token = substr(line, RSTART, RLENGTH)
        out = out substr(line, 1, RSTART - 1)
        if (token == "/*") {
            in_comment = 1
            line = substr(line, RSTART)
            continue
        }
        line = substr(line, RSTART + RLENGTH)
        if (token ~ /^\/\//) token = "<i>" token "</i>"
        else if (token ~ /^[&']/) token = "<u>" token "</u>"
        else if (token in keywords) token = "<b>" token "</b>"
        out = out token
    }
    return out line
}

# A line of a shell script, of Python or of a Makefile.
function script_line(line) {
    if (match(line, /^[ \t]*#.*|[ \t]# .*/)) return substr(line, 1, RSTART - 1) "<i>" substr(line, RSTART, RLENGTH) "</i>"
    return line
}

function coloured(line) { return language == "c" ? c_line(line) : language == "script" ? script_line(line) : line }

function language_of(name) {
    if (name ~ /^(c|h|cu|cuh|cpp)$/) return "c"
    return name ~ /^(sh|bash|py|python|awk|make|Makefile|run)$/ ? "script" : ""
}

# A block of the course that quotes a function begins with a comment such as / * tiny_gpt.c in docs/course, linear_backward() * /,
# which becomes a link to its definition.
function quotation(line,    words, file, name, source, number, place) {
    split(line, words, /[ ,(]+/)
    file = words[3] == "in" ? words[4] "/" words[2] : words[2]
    name = words[3] == "in" ? words[5] : words[3]
    while ((getline source < file) > 0) {
        number++
        if (source ~ "^[A-Za-z_].*[ *]" name "[[(]" && source !~ /;$/) place = number # declarations are above definitions
    }
    close(file)
    if (!place) return line
    print file >> sources
    return "<a href=\"" root file ".html#L" place "\">" line "</a>"
}

# -------------------------------------------------------------------------------------------- the frame

function read_pages(    line, field) {
    while ((getline line < pages) > 0) {
        split(line, field, "\t")
        count++
        group[count] = field[1]; path[count] = field[2]; title[count] = field[3]
        gsub(/`/, "", title[count])
        title[count] = label[count] = escape(title[count])
        sub(/^(The course, c|C)hapter /, "", label[count]) # in the contents, a chapter is its number and subject
        if (path[count] == page) current = count
    }
}

# The list of all pages, in groups. The group of this page is open, with the sections of this page.
function contents(    i, text) {
    for (i = 1; i <= count; i++) {
        if (group[i] != group[i - 1])
            text = text (i > 1 ? "</ul></details>\n" : "") "<details" (current <= 1 || group[i] == group[current] ? " open" : "") \
                "><summary>" group[i] "</summary><ul>\n"
        text = text "<li><a href=\"" root html_path(path[i]) "\"" (i == current ? " aria-current=\"page\"" : "") ">" label[i] "</a>" \
            (i == current && sections ? "<ul>" sections "</ul>" : "") "</li>\n"
    }
    return text "</ul></details>"
}

function turn(i, class, word) {
    if (i < 1 || i > count) return ""
    return "<a class=\"" class "\" href=\"" root html_path(path[i]) "\"><small>" word "</small> " title[i] "</a>\n"
}

function print_head(    name) {
    name = current ? title[current] : page
    print "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">"
    print "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">"
    print "<title>" name (name == "laser.c" ? "" : " - laser.c") "</title>\n<link rel=\"stylesheet\" href=\"" root "site.css\">\n</head>\n<body>"
    print "<a class=\"skip\" href=\"#text\">To the text</a>"
    print "<header><a href=\"" root "index.html\">laser.c</a><label for=\"menu\">Contents</label></header>"
    print "<input type=\"checkbox\" id=\"menu\" aria-label=\"Show the contents\">"
    print "<nav class=\"contents\" aria-label=\"Contents\">\n<a class=\"home\" href=\"" root "index.html\">laser.c</a>\n" contents() "\n</nav>"
    print "<main id=\"text\" class=\"" kind "\">"
}

function print_foot() {
    if (current) {
        print "<nav class=\"turn\" aria-label=\"Previous and next page\">"
        print turn(current - 1, "previous", "Previous") turn(current + 1, "next", "Next") "</nav>"
    }
    print "<footer>" (current ? "This page is made from " : "This page shows the file ") page ".</footer>\n</main>\n</body>\n</html>"
}

# The contents beside a Markdown page have its sections, so its lines wait until all of it has been read.
function put(line) {
    if (kind == "source") print line
    else lines[++line_count] = line
}

BEGIN {
    read_pages()
    root = page
    gsub(/[^\/]+\//, "../", root); sub(/[^\/]*$/, "", root)
    split("auto break case char class const constexpr continue default do double else enum extern float for goto if inline int long " \
        "namespace register return short signed sizeof static struct switch template typedef typename union unsigned using void " \
        "volatile while bool size_t ptrdiff_t int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t FILE NULL true false " \
        "__global__ __device__ __shared__ __host__", words, " ")
    for (i in words) keywords[words[i]] = 1
    if (kind == "source") {
        language = page
        sub(/.*[.\/]/, "", language)
        language = language_of(language)
        print_head()
        printf "<h1>%s</h1>\n<pre tabindex=\"0\"><code>", page
    }
}

kind == "source" { put("<a id=\"L" NR "\" href=\"#L" NR "\"></a>" coloured(escape($0))); next }

# A block of code: its first line follows the tags, its last line is the closing tags.
!in_code && match($0, /^<pre><code[^>]*>/) {
    language = substr($0, 1, RLENGTH)
    opening = "<pre tabindex=\"0\"><code>"
    $0 = substr($0, RLENGTH + 1)
    language = sub(/.*language-/, "", language) && sub(/".*/, "", language) ? language_of(language) : ""
    in_code = 1; in_comment = 0
    if (language == "c" && /^\/\* [^ ,]+( in [^ ,]+)?, [a-z_0-9]+[^*]*\*\/$/) {
        put(opening "<i>" quotation($0) "</i>")
        opening = ""
        next
    }
}
in_code {
    in_code = !sub(/<\/code><\/pre>$/, "")
    put(opening coloured($0) (in_code ? "" : "</code></pre>"))
    opening = ""
    next
}
/^<h[1-6]>.*<\/h[1-6]>$/ { put(heading($0)); next }
{
    if (/^<td/) sub(/^<td/, length($0) > 70 ? "<td class=\"long\"" : length($0) < 32 ? "<td class=\"short\"" : "<td")
    sub(/^<table>/, "<div class=\"table\" tabindex=\"0\"><table>"); sub(/^<\/table>/, "</table></div>")
    put(inline($0))
}

END {
    if (kind == "source") print "</code></pre>"
    else {
        print_head()
        for (i = 1; i <= line_count; i++) print lines[i]
    }
    print_foot()
}
