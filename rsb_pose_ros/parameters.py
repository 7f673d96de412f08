"""The node's parameters: one dataclass whose field metadata becomes ParameterDescriptors."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter


class Change(Enum):
    """When a parameter may be changed."""

    LIVE = 'at any time'
    UNCONFIGURED = 'only while the node is unconfigured'
    START = 'only at start'


def _parameter(
    default: Any,
    description: str,
    change: Change = Change.LIVE,
    *,
    unit: str = '',
    bounds: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {
        'description': description,
        'change': change,
        'unit': unit,
        'bounds': bounds,
        'choices': choices,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NodeParameters:
    """Values of all parameters at one moment. Raises ValueError for a choice that is none."""

    autostart: bool = _parameter(True, 'Configure and activate by itself at start.', Change.START)
    weights: str = _parameter(
        '', 'Path of the weights file; empty: the weights of this package.', Change.UNCONFIGURED
    )
    device: str = _parameter(
        'auto',
        'Where the network runs; auto: cuda where there is one, else cpu.',
        Change.UNCONFIGURED,
        choices=('auto', 'cpu', 'cuda'),
    )
    flip_test: bool = _parameter(
        False,
        "Look at the mirrored pair too: smaller errors for twice the network's work.",
        Change.UNCONFIGURED,
    )
    detector: str = _parameter(
        'hog',
        'What finds people in whole images; hog: OpenCV histogram of oriented gradients.',
        Change.UNCONFIGURED,
        choices=('hog',),
    )
    max_people: int = _parameter(5, 'People followed at once; more take longer.', bounds=(1, 20))
    detect_every: int = _parameter(
        10,
        'Pairs from one search for new people to the next while somebody is followed.',
        bounds=(1, 300),
    )
    joint_confidence: float = _parameter(
        0.15, 'A joint counts as seen from this confidence on.', bounds=(0.0, 1.0)
    )
    lost_for_s: float = _parameter(
        0.7,
        'A person who is not found keeps the track for this time.',
        unit='s',
        bounds=(0.0, 10.0),
    )
    smoothing: bool = _parameter(
        False, 'Filter joint positions (one-euro) of people found from then on.'
    )
    smoothing_minimum_cutoff_hz: float = _parameter(
        1.5, 'Cut-off of the filter for a joint at rest.', unit='Hz', bounds=(0.01, 100.0)
    )
    smoothing_speed_coefficient: float = _parameter(
        2.0, "Growth of the cut-off with a joint's speed.", unit='Hz per m/s', bounds=(0.0, 100.0)
    )
    image_transport: str = _parameter(
        'raw',
        'raw: sensor_msgs/Image; compressed: sensor_msgs/CompressedImage on <topic>/compressed.',
        Change.UNCONFIGURED,
        choices=('raw', 'compressed'),
    )
    input_rectified: bool = _parameter(
        False,
        'Images are rectified already: take image_rect instead of image_raw.',
        Change.UNCONFIGURED,
    )
    approximate_sync: bool = _parameter(
        False, 'Pair images whose stamps differ by up to slop_s; else stamps must be equal.'
    )
    slop_s: float = _parameter(
        0.01,
        'Largest stamp difference of a pair with approximate_sync; keep it below half a frame.',
        unit='s',
        bounds=(0.001, 1.0),
    )
    queue_size: int = _parameter(
        10, 'Images of each camera that wait for their partner.', bounds=(1, 200)
    )
    frame_id: str = _parameter(
        '', "Frame of the poses; empty: frame_id of the left camera's images."
    )
    publish_tf: bool = _parameter(True, 'Broadcast a frame for every measured joint.')
    tf_prefix: str = _parameter(
        '', 'Begins the names of these frames; where several nodes share a /tf, one for each.'
    )
    publish_markers: bool = _parameter(True, 'Publish ~/markers while somebody subscribes.')
    publish_overlay: bool = _parameter(True, 'Publish ~/overlay while somebody subscribes.')
    marker_lifetime_s: float = _parameter(
        0.5, 'Markers vanish after this time without a new one.', unit='s', bounds=(0.05, 60.0)
    )
    ellipsoid_sigmas: float = _parameter(
        2.0, 'Half axes of the covariance ellipsoids; 0: none.', unit='sigma', bounds=(0.0, 5.0)
    )
    silence_timeout_s: float = _parameter(
        3.0, 'A topic that is silent for longer is reported.', unit='s', bounds=(0.5, 60.0)
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            choices = entry.metadata['choices']
            value = getattr(self, entry.name)
            if choices and value not in choices:
                raise ValueError(
                    f"parameter {entry.name} is '{value}', expected one of {', '.join(choices)}"
                )


def descriptor(name: str) -> ParameterDescriptor:
    """Describe one parameter: text with unit, range, choices, read-only."""
    entry = next(entry for entry in fields(NodeParameters) if entry.name == name)
    metadata = entry.metadata
    unit = f' [{metadata["unit"]}]' if metadata['unit'] else ''
    description = ParameterDescriptor(
        description=f'{metadata["description"]}{unit} Can be changed {metadata["change"].value}.',
        read_only=metadata['change'] is Change.START,
        additional_constraints=(
            f'one of: {", ".join(metadata["choices"])}' if metadata['choices'] else ''
        ),
    )
    if metadata['bounds'] is not None:
        low, high = metadata['bounds']
        if entry.type is int:
            description.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            description.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return description


def declare(node: Node) -> NodeParameters:
    """Declare every parameter on `node` and return the values it starts with.

    Raises ValueError or an rclpy ParameterException for a value of the wrong type, out of range
    or none of the choices.
    """
    for entry in fields(NodeParameters):
        node.declare_parameter(entry.name, entry.default, descriptor(entry.name))
    return NodeParameters(
        **{entry.name: node.get_parameter(entry.name).value for entry in fields(NodeParameters)}
    )


def updated(current: NodeParameters, changes: Iterable[Parameter]) -> NodeParameters:
    """Apply `changes` to `current`; parameters that are not ours are left aside.

    Raises ValueError for a choice that is none.
    """
    names = {entry.name for entry in fields(NodeParameters)}
    values = {name: getattr(current, name) for name in names}
    values.update({change.name: change.value for change in changes if change.name in names})
    return NodeParameters(**values)


def reason_to_refuse(
    current: NodeParameters, changes: Iterable[Parameter], *, unconfigured: bool
) -> str:
    """Say in one sentence why `changes` cannot be made now; empty: they can."""
    changes = tuple(changes)
    when = {entry.name: entry.metadata['change'] for entry in fields(NodeParameters)}
    for change in changes:
        if when.get(change.name) is Change.UNCONFIGURED and not unconfigured:
            return (
                f'parameter {change.name} can be changed only while the node is unconfigured: '
                'deactivate and clean up the node first, then set it and configure again'
            )
    try:
        updated(current, changes)
    except ValueError as error:
        return str(error)
    return ''
