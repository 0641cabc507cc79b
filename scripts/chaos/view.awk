# Reads /v1/cluster, a node or a group on each line, into led, held (by node id), api (of live nodes), and counts.
# Used with one of the questions in scripts/chaos/view.sh.
function text(name) {
    if (!match($0, "\"" name "\":\"[^\"]*\"")) return ""
    return substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 5)
}
# Fills list with the ids in this list of the line, and gives their number.
function ids(name, list,   found) {
    if (!match($0, "\"" name "\":\\[[^]]*\\]")) return 0
    found = substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 5)
    gsub(/"/, "", found)
    return split(found, list, ",")
}
/"group":/ {
    groups++
    leader = text("leader")
    if (leader == "") unled++
    else led[leader]++
    copies = 0
    split("", held_here)
    n = ids("voters", list); for (i = 1; i <= n; i++) { held_here[list[i]]; held[list[i]]++; copies++ }
    n = ids("learners", list); for (i = 1; i <= n; i++) { held_here[list[i]]; held[list[i]]++; copies++ }
    n = ids("planned", list)
    is_moved = n == copies
    for (i = 1; i <= n; i++) if (!(list[i] in held_here)) is_moved = 0
    if (!is_moved) moving++
    all_copies += copies
    next
}
/"id":"/ { if (/"alive":true/) { api[text("id")] = text("api"); alive++ } }
