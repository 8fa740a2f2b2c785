#!/usr/bin/env python3
"""Makes services/model-proxy/src/prices.json from a published price list.

    scripts/prices.py <list.json> [<prices.json>]

The list is {"_about": {"snapshot_date": ...}, "models": [...]} with US dollars
for a million tokens (or for one token, second, picture or query, as its key
says); ours holds integer billionths of a dollar. A model whose prices have not
changed keeps its rows; one whose prices have gets a new row from the list's
date on, so that a call is priced as of its own day.
"""

import json
import sys
from decimal import Decimal
from pathlib import Path

OURS = Path(__file__).parent.parent / "services/model-proxy/src/prices.json"
PROVIDERS = {"together_ai": "together"}
NANO = 1_000_000_000
# What the list's keys are in ours, and how many units its price is for.
RATES = {
    "input": ("input_per_1m", 1),
    "output": ("output_per_1m", 1),
    "cache_read": ("cached_input_per_1m", 1),
    "cache_write": ("cache_write_per_1m", 1),
    "reasoning": ("output_cost_per_reasoning_token", 1_000_000),
    "input_audio": ("input_cost_per_audio_token", 1_000_000),
    "output_audio": ("output_cost_per_audio_token", 1_000_000),
    "output_image": ("output_cost_per_image_token", 1_000_000),
    "per_image": ("output_cost_per_image", 1),
    "per_query": ("input_cost_per_query", 1),
}
FLAGS = ("tools", "vision", "json_schema", "reasoning")


def nano(dollars, units):
    exact = Decimal(str(dollars)) * units * NANO
    if exact != exact.to_integral_value():
        raise SystemExit(f"{dollars} is no whole number of billionths")
    return int(exact)


def rates(model, listed):
    found = {
        ours: nano(listed[theirs], units)
        for ours, (theirs, units) in RATES.items()
        if listed.get(theirs) is not None
    }
    by_tokens = any(found.get(name) for name in ("input", "output", "input_audio"))
    seconds = listed.get("input_cost_per_second") or listed.get("output_cost_per_second")
    if seconds and not by_tokens:
        found["per_second"] = nano(seconds, 1)
    if "per_query" in found:  # the list says 0 where tokens are not what is billed
        found = {"per_query": found["per_query"]}
    # Who lists nothing for writing to the cache, or OpenAI no price at all, asks
    # nothing extra: what is written is input all the same.
    free = found.get("cache_write") == 0
    if free or model["provider"] == "openai" and "cache_read" in found:
        found["cache_write"] = found.get("cache_write") or found["input"]
    # Anthropic: an hour in the cache costs twice the input.
    if model["provider"] == "anthropic" and "cache_write" in found:
        found["cache_write_hour"] = 2 * found["input"]
    return found


def tier(base, listed):
    found = {"above": listed["above_input_tokens"]}
    found |= {
        ours: nano(listed[theirs], units)
        for ours, (theirs, units) in RATES.items()
        if listed.get(theirs) is not None
    }
    # Writing to the cache is a fixed multiple of the input's price.
    for name in ("cache_write", "cache_write_hour"):
        if name in base and name not in found:
            found[name] = base[name] * found["input"] // base["input"]
    return found


def entry(model, day):
    provider = PROVIDERS.get(model["provider"], model["provider"])
    made = {"id": f"{provider}/{model['id']}", "mode": model["mode"]}
    for ours, theirs in (
        ("context_window", "context_window"),
        ("max_output", "max_output_tokens"),
        ("dimensions", "output_vector_size"),
    ):
        if model.get(theirs):
            made[ours] = model[theirs]
    made |= {flag: True for flag in FLAGS if model.get(flag)}
    if model.get("deprecation_date"):
        made["retires"] = model["deprecation_date"]
    row = {"from": day} | rates(model, model)
    tiers = [tier(row, listed) for listed in model.get("long_context_tiers") or []]
    if tiers:
        row["tiers"] = tiers
    made["prices"] = [row]
    return made


def without_day(row):
    return {name: value for name, value in row.items() if name != "from"}


def main(listed, ours=OURS):
    listed, ours = json.loads(Path(listed).read_text()), Path(ours)
    before = {model["id"]: model for model in json.loads(ours.read_text())} if ours.exists() else {}
    day = listed["_about"]["snapshot_date"]
    made = {model["id"]: model for model in (entry(m, day) for m in listed["models"])}
    for name, model in made.items():
        # Old rows of our own older shape have no days and are not kept.
        rows = before.get(name, {}).get("prices", [])
        kept = [row for row in rows if row["from"] < day]
        same = kept and without_day(kept[-1]) == without_day(model["prices"][0])
        model["prices"] = kept if same else kept + model["prices"]
    # What is listed no more is kept: old calls still have their price.
    made |= {name: model for name, model in before.items() if name not in made}
    lines = ",\n".join("  " + json.dumps(model) for model in made.values())
    ours.write_text(f"[\n{lines}\n]\n")
    print(f"{ours.name}: {len(made)} models as of {day}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
