"""Device trees: the monitor chips of a board as children of i2c-stub, with labels and shunts as the real tree has them.

The chips come from ``edgeprof.simulation.board_specs``, which was written from the boards' device trees; NVIDIA's IIO
driver (JetPack 4) is not in this kernel, so those boards' chips are bound to the mainline driver, as on a mainline
kernel they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeprof.simulation.board_specs import BOARDS

if TYPE_CHECKING:
    from edgeprof.simulation.board_specs import BoardSpec, ChipSpec

#: Boards with a monitor chip that a mainline driver serves.
MONITORED = tuple(name for name, spec in BOARDS.items() if spec.chips)


@dataclass(frozen=True)
class Changes:
    """What is unlike the board's own tree.

    Attributes:
        disabled: Labels of channels that are switched off.
        unlabelled: Labels that are left out.
        shunts_uohm: Label → what the tree says of its shunt.
        single_shot: Whether the driver starts each conversion itself and waits for its end.
    """

    disabled: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    shunts_uohm: dict[str, int] = field(default_factory=dict)
    single_shot: bool = False


def addresses(spec: BoardSpec) -> list[int]:
    return sorted({chip.address for chip in spec.chips})


def source(spec: BoardSpec, changes: Changes | None = None) -> str:
    """The .dts of a board."""
    changes = changes or Changes()
    names = ", ".join(f'"{name}"' for name in spec.compatible)
    chips = "\n".join(_chip(chip, changes) for chip in spec.chips)
    return f"""/dts-v1/;
/ {{
    model = "{spec.model}"; compatible = {names};
    #address-cells = <1>; #size-cells = <0>;
    i2c-stub {{
        compatible = "edgeprof,i2c-stub"; #address-cells = <1>; #size-cells = <0>;
{chips}
    }};
}};
"""


def _chip(chip: ChipSpec, changes: Changes) -> str:
    head = f"        power-sensor@{chip.address:x} {{ reg = <{chip.address:#x}>;"
    if chip.part == "ina238":
        (rail,) = chip.rails
        assert rail is not None
        shunt = changes.shunts_uohm.get(rail.label, round(rail.shunt_ohm * 1e6))
        return f'{head} compatible = "ti,ina238"; shunt-resistor = <{shunt}>; label = "{rail.label}"; }};'
    single = " ti,single-shot;" if changes.single_shot else ""
    lines = [f'{head} compatible = "ti,ina3221"; #address-cells = <1>; #size-cells = <0>;{single}']
    for number, rail in enumerate(chip.rails):
        if rail is None or rail.label in changes.disabled:
            lines.append(f'            input@{number} {{ reg = <{number}>; status = "disabled"; }};')
            continue
        shunt = changes.shunts_uohm.get(rail.label, round(rail.shunt_ohm * 1e6))
        label = "" if rail.label in changes.unlabelled else f' label = "{rail.label}";'
        lines.append(
            f"            input@{number} {{ reg = <{number}>;{label} shunt-resistor-micro-ohms = <{shunt}>; }};"
        )
    return "\n".join([*lines, "        };"])
