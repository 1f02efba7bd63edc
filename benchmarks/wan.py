"""What locality is worth across wide-area links, and what a cut of one costs.

Two sites behind NAT and firewalls, each with two workers.

In network namespaces (see docs/embedded-grid-network.md), so for root alone. The same files by their names
on the Grid, which tell where they are, and by URLs, which do not. What was read where is counted by the
firewalls. Then a query runs while nothing passes a site's link, `CUT` long.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncssh
import harness
import yaml

import gridproof
from gridproof.localgrid import LocalGrid
from gridproof.localgrid.client import GridAccess
from gridproof.localgrid.network.wide import PROXY_PORT, WideNetwork, missing

SITES, CORES = 2, 2
RATE, DELAY = 100_000_000, 0.01  # bit/s; s each way
FILES, USER = 8, "benchmark"
CUT = 60.0  # s
CLAIM = "at least 0.95 of the bytes are read at the own site; a cut of 60 s costs no worker"


def start_proxy(network: WideNetwork, home: Path, stack: ExitStack) -> Path:
    """A ProxyServer on the VO-box; returns the configuration for its user."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key_file, settings = home / "key", home / "proxy.yaml"
    key_file.touch(0o600)
    key_file.write_bytes(key.export_private_key())
    public = key.export_public_key().decode()
    server = {"users": {USER: [public]}, "accounts": {USER: None}, "host": "0.0.0.0", "port": PROXY_PORT}
    settings.write_text(yaml.safe_dump({**server, "state_dir": str(home / "state")}))
    argv = [*network.vobox.command, sys.executable, "-m", "gridproof.cli", "proxy", "--config", str(settings)]
    process = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE))
    stack.callback(process.kill)
    assert process.stdout
    host_key = yaml.safe_load(process.stdout.readline())["host_key"]
    proxy = {"host": network.vobox_address, "host_key": host_key, "key_file": str(key_file)}
    config = home / "gridproof.yaml"
    pilots = {"python": sys.executable, "cores": CORES}
    config.write_text(yaml.safe_dump({"proxy": proxy, "pilots": pilots}))
    return config


def received(network: WideNetwork) -> dict[str, int]:
    """Bytes that have come to all worker nodes, by peer."""
    by_site = [site.received() for site in network.sites]
    return {peer: sum(counted[peer] for counted in by_site) for peer in by_site[0]}


def measure(pairs: int, events: int, burn: int) -> dict[str, Any]:
    """Seconds of each way, what came to the worker nodes meanwhile, and how a cut went."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        network = stack.enter_context(WideNetwork(SITES, RATE, DELAY))
        grid = LocalGrid(SITES, slots=1, cores=CORES, network=network.network)
        with network.vobox.entered():
            grid.start()
        stack.callback(grid.stop)
        os.environ |= {**grid.environment, "GRIDPROOF_CONFIG": str(start_proxy(network, home, stack))}
        files = harness.data(FILES, events)
        names = [f"/local/data/{file.name}" for file in files]
        for number, (file, name) in enumerate(zip(files, names, strict=True)):
            site = number * SITES // FILES
            with network.sites[site].gateway.entered():
                grid.put(file, name, ses=[grid.se_names[site]])
        stack.enter_context(network.laptop.entered())
        with GridAccess(grid.environment) as access:
            permits = [access.command("access", "read", name)[0] for name in names]
            urls = [f"{permit['url']}?authz={permit['envelope']}" for permit in permits]
        session = stack.enter_context(
            gridproof.open(
                f"proxy://{USER}@{network.vobox_address}",
                workers=SITES * CORES,
                dataset=names,
                tree=harness.TREE,
            )
        )
        reference: list[dict[str, list[float]]] = []
        came: dict[str, list[dict[str, int]]] = {"by name": [], "by URL": []}

        def process(way: str, dataset: list[str]) -> float:
            before = received(network)
            seconds, result = harness.timed(
                lambda: session.process(session.dataset(dataset, tree=harness.TREE), harness.SELECTOR)
            )
            came[way].append({peer: n - before[peer] for peer, n in received(network).items()})
            reference.append(harness.contents(result))
            harness.same(reference[0], reference[-1])
            return seconds

        def survive(burn: int) -> dict[str, float]:
            """A query while nothing passes the first site's link, where half of its files are."""
            before = {(worker.name, worker.pid) for worker in session.workers}
            data = session.dataset(names, tree=harness.TREE)
            query = session.submit(data, harness.SELECTOR, inputs={"burn": burn})
            while not query.progress.events:
                query.wait(0.1)
            network.sites[0].cut()
            try:
                if query.wait(CUT):
                    raise SystemExit("the query was over before the cut")
            finally:
                network.sites[0].mend()
            seconds, result = harness.timed(query.result)
            harness.same(reference[0], harness.contents(result))
            after = {(worker.name, worker.pid) for worker in session.workers}
            return {"workers_lost": len(before - after), "seconds_afterwards": seconds}

        process("by name", names)  # compiles
        del came["by name"][0]
        seconds = harness.interleaved(
            pairs, lambda: process("by name", names), lambda: process("by URL", urls)
        )
        size = sum(file.stat().st_size for file in files) / 1e6
        figures = {"delayed_by": network.delayed_by, "megabytes": size, "seconds": seconds, "came": came}
        return {**figures, "cut": survive(burn)}


def main() -> None:
    """Measure and report."""
    scale = harness.scale()
    if reason := missing():
        harness.report("wan", CLAIM, {"skipped": reason}, False, 0, {}, scale.quick)
        return
    found = measure(scale.pairs, scale(400_000, 10_000), scale(1_000, 40_000))
    near, far = found["seconds"]

    def share(came: dict[str, int]) -> float:
        return came["own_se"] / (came["own_se"] + came["other_se"])

    shares = {way: harness.spread([share(one) for one in each]) for way, each in found["came"].items()}
    figures = {
        "links": f"{RATE / 1e6:.0f} Mbit/s, {1e3 * DELAY:.0f} ms each way, by {found['delayed_by']}",
        "megabytes": round(found["megabytes"], 1),
        "seconds": {"by name": harness.spread(near), "by URL": harness.spread(far)},
        "own_site_share": shares,
        "slower_by_url": harness.ratios(far, near),
        "cut": found["cut"],
        "tunnel_kb": harness.spread([one["proxy"] / 1e3 for one in found["came"]["by name"]]),
    }
    value = {
        "own site's share, by name": shares["by name"]["median"],
        "own site's share, by URL": shares["by URL"]["median"],
        "times slower by URL": figures["slower_by_url"]["median"],
        "workers lost by a cut": found["cut"]["workers_lost"],
    }
    met = shares["by name"]["median"] >= 0.95 and not found["cut"]["workers_lost"]
    harness.report("wan", CLAIM, value, met, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    main()
