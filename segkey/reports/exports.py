"""What ``segkey export`` made, as a table and as JSON."""

from rich.table import Table

from segkey.reports.text import facts_of
from segkey.system.wording import counted, in_bytes


def export_table(made) -> Table:
    """An exported file: what it takes, and how it compares with PyTorch."""
    header, (height, width) = made.exported.header, made.exported.size
    images = f"{height}x{width}"
    if made.exported.any_size:
        most = made.exported.multiple
        images += f", or any multiple of {most}" if most > 1 else ", or any other size"
    facts = [
        ("file", f"{made.path}, {in_bytes(made.bytes)}"),
        ("ONNX opset", made.exported.opset),
        ("network", f"{made.exported.network}, {counted(len(header.classes), 'class', 'classes')}"),
        ("images", f"{images}, any number per batch"),
        ("needs", _needs(header)),
        ("same class as PyTorch", f"{made.equal:.3%} of pixels, {_compared(made)}"),
    ]
    if made.recipients:
        facts.append(("sealed for", ", ".join(made.recipients)))
    return facts_of(f"Exported run {made.exported.run}", facts)


def _needs(header) -> str:
    if header.method == "none":
        return "plain images"
    return f"images encrypted with {header.method}, M = {header.block_size}, key {header.key_id}"


def _compared(made) -> str:
    return f"on {counted(len(made.compared.pixels), 'image')} ({made.compared.origin})"


def export_document(made) -> dict:
    """The document of ``segkey export --json``."""
    exported = made.exported
    return {
        "file": str(made.path),
        "bytes": made.bytes,
        "format": exported.format,
        "opset": exported.opset,
        "network": exported.network,
        "classes": list(exported.classes),
        "size": list(exported.size),
        "any_size": exported.any_size,
        "multiple": exported.multiple,
        "method": exported.method,
        "block_size": exported.block_size,
        "key_id": exported.key_id,
        "recipients": list(made.recipients),
        "same_class_as_pytorch": made.equal,
        "compared": {
            "images": len(made.compared.pixels),
            "origin": made.compared.origin,
            "real": made.compared.real,
        },
    }
