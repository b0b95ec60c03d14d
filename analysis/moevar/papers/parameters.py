"""Parameters chosen once: read from the studies as they ran, never typed."""

# Keys that say how a study was set up, not what it measures; in this order.
KEYS = (
    ("model", "preset"),
    ("model", "layers"),
    ("workload", "kind"),
    ("workload", "skew"),
    ("workload", "burst"),
    ("workload", "drift"),
    ("workload", "tokens_per_device"),
    ("fleet", "preset"),
    ("fleet", "devices"),
    ("fleet", "spread"),
    ("fleet", "pool"),
    ("fleet", "transient"),
    ("conditions", "power_cap_w"),
    ("conditions", "heat"),
    ("placement", "redundant_experts"),
    ("placement", "trace_steps"),
    ("placement", "recompute"),
    ("phases", "steps"),
    ("study", "repeats"),
    ("study", "seed"),
)


def keys_of(configs):
    """KEYS and every key of [serving], as far as the studies have them."""
    serving = sorted({("serving", key) for config in configs for key in config.get("serving", {})})
    return [key for key in (*KEYS, *serving) if any(key[1] in config.get(key[0], {}) for config in configs)]


def chosen(runs):
    """(shared: [(key, value)] that all runs have in common, rows: [(run, {key: value})] of the others)."""
    present = runs.present()
    configs = [run.config for _, run in present]
    keys = keys_of(configs)
    values = {key: [config.get(key[0], {}).get(key[1]) for config in configs] for key in keys}
    shared = [key for key in keys if all(value == values[key][0] for value in values[key])]
    rows = [
        (entry.name, {".".join(key): shown(values[key][i]) for key in keys if key not in shared})
        for i, (entry, _) in enumerate(present)
    ]
    return [(".".join(key), shown(values[key][0])) for key in shared], rows


def shown(value):
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(part) for part in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
