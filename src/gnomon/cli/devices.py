"""`gnomon devices`: the catalogue, one device with its sources, or this machine measured."""

from typing import TYPE_CHECKING

import click

from gnomon.cli._common import console, json_option, print_json

if TYPE_CHECKING:
    from gnomon.devices.device import Device, Quantity
    from gnomon.devices.host import Host


@click.command()
@click.argument("name", required=False)
@click.option("--probe", is_flag=True, help="Measure this machine's peaks now and keep them for later commands.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to measure with (1 unless given).")
@json_option
def command(name: str | None, probe: bool, threads: int | None, as_json: bool) -> None:
    """The catalogue of devices; with NAME (or a device file) one device, every number with its source."""
    if name is not None and probe:
        raise click.UsageError("--probe measures this machine; give either it or NAME")
    if threads is not None and not probe:
        raise click.UsageError("--threads belongs to --probe")
    if probe:
        _probe(threads or 1, as_json)
        return
    from gnomon.devices import catalogue

    if name is not None:
        device = catalogue.get(name)
        if as_json:
            print_json(device)
        else:
            _show(device)
        return
    devices = dict(zip(catalogue.names(), catalogue.every(), strict=True))
    ordered = dict(sorted(devices.items(), key=lambda item: (-half_precision_peak(item[1]), item[0])))
    if as_json:
        print_json(ordered)
    else:
        _list(ordered)


def half_precision_peak(device: "Device") -> float:
    """Peak at 16 bits in FLOP/s, which the list is sorted by; float32's where there is no such unit."""
    peaks = [device.peak_flop_s[key].value for key in ("float16", "bfloat16") if key in device.peak_flop_s]
    return max(peaks, default=device.peak("float32"))


def _list(devices: "dict[str, Device]") -> None:
    from rich import box
    from rich.table import Table

    from gnomon.core.units import format_bytes

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), caption="dense peaks in 1e12 operations per second")
    table.add_column("device", no_wrap=True)
    for heading in ("memory", "GB/s", "float32", "16 bits", "float8", "int8", "W"):
        table.add_column(heading, justify="right", no_wrap=True)
    for slug, device in devices.items():
        peaks = device.peak_flop_s
        has_half = "float16" in peaks or "bfloat16" in peaks
        table.add_row(
            slug,
            format_bytes(device.memory_bytes.value),
            f"{device.memory_bandwidth_b_s.value / 1e9:.0f}",
            _tera(peaks.get("float32")),
            f"{half_precision_peak(device) / 1e12:.4g}" if has_half else "-",
            _tera(peaks.get("float8")),
            _tera(peaks.get("int8")),
            f"{device.tdp_w.value:.0f}" if device.tdp_w else "-",
        )
    console().print(table)


def _tera(quantity: "Quantity | None") -> str:
    return f"{quantity.value / 1e12:.4g}" if quantity else "-"


def _show(device: "Device") -> None:
    from rich import box
    from rich.table import Table

    from gnomon.core.units import format_bytes, format_count

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title=device.name, title_justify="left")
    table.add_column("quantity", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True)

    def row(label: str, quantity: "Quantity", text: str) -> None:
        table.add_row(label, text, quantity.source)

    for heading, peaks in (("peak", device.peak_flop_s), ("vector", device.vector_flop_s)):
        for precision, quantity in peaks.items():
            unit = "op/s" if precision.startswith("int") else "FLOP/s"
            row(f"{heading} {precision}", quantity, format_count(quantity.value, unit))
    for label, fact, unit in (
        ("memory", device.memory_bytes, "bytes"),
        ("bandwidth", device.memory_bandwidth_b_s, "B/s"),
        ("units", device.units, ""),
        ("clock", device.clock_hz, "Hz"),
        ("cache", device.cache_bytes, "bytes"),
        ("link, one way", device.link_b_s, "B/s"),
        ("host, one way", device.pcie_b_s, "B/s"),
        ("network, one way", device.network_b_s, "B/s"),
        ("node", device.node_size, "devices"),
        ("power limit", device.tdp_w, "W"),
        ("process", device.process_m, "m"),
    ):
        if fact is not None:
            row(label, fact, format_bytes(fact.value) if unit == "bytes" else format_count(fact.value, unit))
    out = console()
    out.print(table)
    out.print(f"{device.vendor}, {device.architecture}", markup=False, highlight=False)
    for key, citation in device.sources.items():
        out.print(f"{key}: {citation}", markup=False, highlight=False)
    for note in device.notes:
        out.print(f"- {note}", markup=False, highlight=False)


def _probe(threads: int, as_json: bool) -> None:
    from gnomon.cli._progress import Progress
    from gnomon.devices.host import host

    machine = host()
    with Progress("measuring this machine") as progress:
        progress("importing torch")
        import torch

        from gnomon.measure.peaks import gpu_device, host_device

        devices = [host_device(refresh=True, threads=threads, progress=progress, machine=machine)]
        devices += [gpu_device(index) for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    if as_json:
        print_json({"host": machine, "devices": devices})
        return
    _show_host(machine)
    for device in devices:
        _show(device)


def _show_host(machine: "Host") -> None:
    from gnomon.core.units import format_bytes

    memory = machine.usable_memory_bytes
    caches = ", ".join(f"L{cache.level} {cache.kind} {format_bytes(cache.size_bytes)}" for cache in machine.caches)
    guest = ", ".join(
        filter(None, (machine.container, f"hypervisor {machine.hypervisor}" if machine.hypervisor else ""))
    )
    lines = [
        f"{machine.cpu}: {machine.usable_cores} of {machine.cpus} logical CPUs usable, "
        f"{format_bytes(memory) if memory else 'memory not known'}",
        f"caches: {caches or 'not known'}",
        f"instruction sets: {', '.join(machine.isa) or 'not known'}",
        f"{machine.system}, kernel {machine.kernel}" + (f" ({guest})" if guest else ""),
    ]
    for line in lines:
        console().print(line, markup=False, highlight=False)
