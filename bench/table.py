"""Results of bench/run.py: kept as JSON, one entry per workload, and printed as Markdown.

A run that measures only some of the workloads replaces their entries and leaves the others as they are. A run without
Flink keeps Flink's earlier figures; a ratio of two different runs is marked in the table.
"""

import json
import math

# What the benchmark is meant to show, as times Flink's rows per second and as a share of Flink's memory.
NEXMARK_EACH, NEXMARK_MEAN, MEMORY_SHARE = 3, 6, 0.5
VIEW_EACH = {"w4": 4, "w6a": 4, "w6b": 4, "w7": 4}
PARTS = ["files", "durable", "ingest", "backfill", "nexmark"]


def key(entry):
    """Which part an entry belongs to, and its place there."""
    if "views" in entry:
        # All at once goes last.
        return ("files", "," in entry["views"], entry["views"], entry["format"])
    if "durable" in entry:
        return ("durable", entry["durable"])
    if "nexmark" in entry:
        return ("nexmark", int(entry["nexmark"].removeprefix("q")))
    return ("backfill",) if "backfill" in entry else ("ingest",)


def load(path):
    try:
        return {key(entry): entry for entry in json.loads(path.read_text())}
    except FileNotFoundError:
        return {}


def keep(path, entry):
    """Puts an entry into the file of results and prints the table anew."""
    entries = load(path)
    old = entries.get(key(entry))
    if old and entry.get("flink", ...) is None and old.get("flink"):
        entry = entry | {"flink": old["flink"] | {"another_run": True}}
    entries[key(entry)] = entry
    ordered = sorted(entries.values(), key=lambda e: (PARTS.index(key(e)[0]), key(e)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ordered, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(ordered))


def markdown(entries):
    """Every workload and query with what was measured, those without a figure too."""
    by_part = {part: [e for e in entries if key(e)[0] == part] for part in PARTS}
    sections = [files(by_part["files"]), durable(by_part["durable"]), ingest(by_part["ingest"]), backfill(by_part["backfill"]), nexmark(by_part["nexmark"])]
    text = "# Results\n\nPrinted by `bench/run.py`; README.md says what is measured. Speeds in thousand rows or events per second.\n"
    text += "".join(sections)
    if any(another_run(e) for e in entries):
        text += "\n`*`: Flink was measured in an earlier run.\n"
    errors = [(label, side["error"].strip().removeprefix("error: ")) for label, side in sides(entries) if "error" in side]
    if errors:
        text += "\n## Without a figure\n\n" + "".join(f"- {label}: {error.splitlines()[0]}\n" for label, error in errors)
    return text


HEAD = ["M rows", "speed", "CPU s", "MB", "Flink: M rows", "speed", "CPU s", "MB", "times Flink", "of its memory"]


def files(entries):
    if not entries:
        return ""
    lines = [[e["views"], e["format"], *pair(e)] for e in entries]
    misses = []
    for entry in entries:
        wanted = VIEW_EACH.get(entry["views"])
        if wanted and (ratio(entry) or wanted) < wanted:
            misses.append(f"{entry['views']} {entry['format']} is {ratio(entry):.1f} times Flink's, not {wanted}")
    misses += memory_misses(entries, lambda e: f"{e['views']} {e['format']}")
    return "\n## Views over files\n\n" + rows(["view", "format", *HEAD], lines, 2) + told_misses(misses)


def durable(entries):
    if not entries:
        return ""
    lines = []
    for entry in entries:
        figures = entry.get("throughput")
        if figures is None:
            lines.append([entry["durable"], *["-"] * 4])
            continue
        speeds = [thousands(figures["acknowledged_rows_per_second"]), thousands(figures["rows_per_second"])]
        lines.append([entry["durable"], millions(figures["rows"]), *speeds, f"{entry['peak_memory_mb']:.0f}"])
    head = ["view", "M rows", "acknowledged", "visible", "MB"]
    return "\n## Through the durable log\n\n" + rows(head, lines, 1)


def ingest(entries):
    figures = entries[0]["ingest"] if entries else {}
    if "throughput" not in figures:
        return ""
    rate, latency = figures["throughput"], figures["latency"]
    acknowledged = rate.get("acknowledged_rows_per_second")
    text = f"{millions(rate['rows'])} million rows: {thousands(acknowledged)} acknowledged, {thousands(rate['rows_per_second'])} visible, "
    text += f"{figures['peak_memory_mb']} MB ({figures['idle_memory_mb']} MB when idle).\n\n"
    times = [(name, latency[name]) for name in ("sent_to_acknowledged_ms", "acknowledged_to_visible_ms") if name in latency]
    lines = [[name.removesuffix("_ms").replace("_", " "), *(f"{ms[p]:.1f}" for p in ("p50", "p90", "p99", "max"))] for name, ms in times]
    return "\n## Through the log with all of packs/commerce\n\n" + text + rows(["ms", "p50", "p90", "p99", "max"], lines, 1)


def backfill(entries):
    figures = entries[0]["backfill"] if entries else {}
    if "busy" not in figures:
        return ""
    alone, beside = (figures["rows"] / figures[f"{how}_seconds"] for how in ("alone", "beside"))
    text = f"W2 over {millions(figures['rows'])} million rows that are there: {thousands(alone)} alone, {thousands(beside)} beside 20,000 rows/s "
    text += f"({figures['peak_memory_mb']} MB). Acknowledged to visible in another view:\n\n"
    names = {"quiet": "before", "busy": "while W2 is built"}
    lines = [[name, *(f"{figures[key][p]:.1f}" for p in ("p50", "p90", "p99", "max"))] for key, name in names.items()]
    return "\n## A view over data that is there\n\n" + text + rows(["ms", "p50", "p90", "p99", "max"], lines, 1)


def nexmark(entries):
    if not entries:
        return ""
    lines = []
    for entry in entries:
        made = entry["generator"] or {}
        lines.append([entry["nexmark"], thousands(speed(made)), whole(made.get("peak_memory_mb")), *pair(entry)])
    head = ["query", "generator: speed", "MB", *["files: M events", *HEAD[1:]]]
    ratios = {e["nexmark"]: ratio(e) for e in entries if ratio(e)}
    text = "\n## Nexmark\n\n" + rows(head, lines, 1)
    if ratios:
        mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
        text += f"\n{len(ratios)} queries beside Flink: geometric mean {mean:.1f} times its events per second, least {min(ratios.values()):.1f} times.\n"
        misses = [f"{query} is {times:.1f} times Flink's, not {NEXMARK_EACH}" for query, times in ratios.items() if times < NEXMARK_EACH]
        if mean < NEXMARK_MEAN:
            misses.append(f"the geometric mean is {mean:.1f}, not {NEXMARK_MEAN}")
        text += told_misses(misses + memory_misses(entries, lambda e: e["nexmark"]))
    return text


def memory_misses(entries, label):
    over = [(label(e), share) for e in entries if (share := memory_share(e)) and share > MEMORY_SHARE]
    return [f"{name} takes {100 * share:.0f} % of Flink's memory, not {100 * MEMORY_SHARE:.0f}" for name, share in over]


def told_misses(misses):
    return "\nMissed:\n\n" + "".join(f"- {miss}\n" for miss in misses) if misses else ""


def rows(head, lines, texts):
    """A Markdown table whose first columns are texts and whose others are numbers."""
    ruler = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "".join("| " + " | ".join(line) + " |\n" for line in [head, ruler, *lines])


def pair(entry):
    """Cells of ours, of Flink's, and the two beside each other."""
    times, share = ratio(entry), memory_share(entry)
    mark = "*" if another_run(entry) else ""
    return [
        *side(entry["shopstream"]), *side(entry["flink"]),
        f"{times:.1f}{mark}" if times else "-", f"{100 * share:.0f} %" if share else "-",
    ]


def side(figures):
    if not speed(figures):
        return ["-"] * 4
    count = figures.get("events") or figures["rows"]
    cpu = figures.get("cpu_seconds")
    return [millions(count), thousands(speed(figures)), "-" if cpu is None else f"{cpu:.1f}", whole(figures["peak_memory_mb"])]


def speed(figures):
    return figures and (figures.get("events_per_second") or figures.get("rows_per_second"))


def ratio(entry):
    ours, flink = speed(entry.get("shopstream")), speed(entry.get("flink"))
    return ours / flink if ours and flink else None


def memory_share(entry):
    if not ratio(entry):
        return None
    return entry["shopstream"]["peak_memory_mb"] / entry["flink"]["peak_memory_mb"]


def another_run(entry):
    return bool(entry.get("flink")) and entry["flink"].get("another_run", False)


def thousands(value):
    return f"{value / 1e3:,.{0 if value >= 1e5 else 1}f}" if value else "-"


def millions(value):
    return f"{value / 1e6:,.1f}" if value >= 1e5 else f"{value / 1e6:.3f}"


def whole(value):
    return f"{value:.0f}" if value else "-"


def sides(entries):
    """What may carry an error, with a name for it."""
    for entry in entries:
        name = entry.get("nexmark") or entry.get("durable") or " ".join(map(str, key(entry)[2:])) or "ingest"
        for which in ("generator", "shopstream", "flink"):
            if isinstance(entry.get(which), dict):
                yield f"{name} {which}", entry[which]
        if "error" in entry:
            yield f"{name} through the log", entry
        for part in ("ingest", "backfill"):
            if "error" in entry.get(part, {}):
                yield part, entry[part]
