"""What an export proved, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeslim.cuts import inner_text
from edgeslim.manifest import Manifest
from edgeslim.parity import Certificate
from edgeslim.report.tables import grid, number


def print_certificate(manifests: Sequence[Manifest], console: Console) -> None:
    """Print what an export proved, of artifacts of one width."""
    first = manifests[0]
    arch, golden = first.architecture, first.golden
    heads, hidden = inner_text(arch)
    facts = grid()
    facts.add_row(
        "encoder",
        Text(
            f"{first.encoder} at width {first.cut} "
            f"(head_dim {heads}, FFN {hidden}), "
            f"{number(first.total_parameters / 1e6)} M parameters, {number(first.gflop_per_tile)} GFLOP a tile"
        ),
    )
    kind = "SYNTHETIC, no real pixel among them" if golden.synthetic else "real"
    facts.add_row("golden tiles", Text(f"{golden.tiles} ({kind}); {golden.source}"))
    certificate = first.certificate
    if certificate is not None:
        facts.add_row("verdict", Text(f"{certificate.verdict}; {certificate.source}"))
        if certificate.score is not None:
            facts.add_row("score", Text(f"{certificate.score[0]:.2%} of them right in torch"))
    console.print("[bold]Proven equal to torch[/]", highlight=False)
    console.print(facts)
    scored = any(m.certificate is not None and m.certificate.score is not None for m in manifests)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("format", "precision", "batch"):
        table.add_column(title, no_wrap=True)
    for title in ("Δ/range", "allowed", "cosine", "same", "hostile", *(["score"] if scored else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for manifest in manifests:
        if manifest.certificate is not None:
            table.add_row(*_certificate_row(manifest, manifest.certificate, scored))
    console.print(table)
    console.print(
        "[dim]Δ/range: largest difference of a logit, as a share of the logits' range;\n"
        "cosine: least of the features'; same: tiles of torch's class;\n"
        "hostile: Δ/range on constant, saturated, empty and striped tiles[/]"
    )
    for manifest in manifests:
        if manifest.certificate is not None and manifest.certificate.kept:
            kept = manifest.certificate.kept
            console.print(
                Text(f"{manifest.format} {manifest.precision}: {len(kept)} layers left in fp32: {', '.join(kept)}")
            )


def _certificate_row(manifest: Manifest, certificate: Certificate, scored: bool) -> list[str]:
    ceiling, parities = certificate.ceiling, list(certificate.batches.values())
    cosines = [p.feature_cosine for p in parities if p.feature_cosine is not None]
    score = certificate.score
    return [
        manifest.format,
        manifest.precision,
        ",".join(certificate.batches),
        f"{max(p.relative for p in parities):.1e}",
        f"{ceiling.relative:.0e}" if ceiling.relative is not None else f"{ceiling.agreement:.0%} same",
        f"{min(cosines):.5f}" if cosines else "",
        f"{min(p.argmax_agreement for p in parities):.2%}",
        f"{certificate.hostile.relative:.1e}",
        *([] if not scored else ["" if score is None else f"{score[1]:.1%}"]),
    ]
