"""What a population has to say: which channels make its input conductances what they
are, which input conductances can be had at all, and which conductances its spikes pin
down."""

from dicjax.populations.explanation.attribution import (
    attribute as attribute,
    Attribution as Attribution,
)
from dicjax.populations.explanation.maps import (
    Nearest as Nearest,
    reachability as reachability,
    ReachabilityMap as ReachabilityMap,
)
from dicjax.populations.explanation.sloppiness import (
    Identifiability as Identifiability,
    identifiability as identifiability,
)
