"""What a neuron is: curves, gates, channels, declarations, and the models that ship."""

from dicjax.neurons.channels import (
    AbstractChannel as AbstractChannel,
    GatedChannel as GatedChannel,
    MarkovChannel as MarkovChannel,
    Transition as Transition,
)
from dicjax.neurons.curves import (
    AbstractCurve as AbstractCurve,
    AbstractGate as AbstractGate,
    Bell as Bell,
    CalciumSaturation as CalciumSaturation,
    Constant as Constant,
    Exponential as Exponential,
    Gate as Gate,
    GoldmanHodgkinKatz as GoldmanHodgkinKatz,
    Linoid as Linoid,
    MagnesiumBlock as MagnesiumBlock,
    Nernst as Nernst,
    OpenFraction as OpenFraction,
    Power as Power,
    Product as Product,
    RateGate as RateGate,
    Relaxation as Relaxation,
    Scaled as Scaled,
    Sigmoid as Sigmoid,
    Sum as Sum,
)
from dicjax.neurons.declarations import (
    check_recipe as check_recipe,
    load_neuron as load_neuron,
)
from dicjax.neurons.evaluation import (
    CALLS as CALLS,
    ELEMENTWISE as ELEMENTWISE,
    NAMED as NAMED,
)
from dicjax.neurons.members import (
    by_member as by_member,
    member_axes as member_axes,
    member_shape as member_shape,
    of_members as of_members,
    ranks as ranks,
    varying as varying,
)
from dicjax.neurons.models import (
    connor_stevens as connor_stevens,
    cortical as cortical,
    da as da,
    hodgkin_huxley as hodgkin_huxley,
    MODELS as MODELS,
    pospischil as pospischil,
    stg as stg,
    stg_prinz as stg_prinz,
)
from dicjax.neurons.neuron import (
    Calcium as Calcium,
    Neuron as Neuron,
    root as root,
    State as State,
    Temperature as Temperature,
)
from dicjax.neurons.recipe import Recipe as Recipe
