"""Training by many nodes that talk little: algorithms, written once, and engines that run them.

from npopt.distributed import EXTRA, ring, simulate
run = simulate(EXTRA(lr=0.1), [problem of each node], rounds=100, graph=ring(8))
run.x[3], run.columns["bytes"]
"""

from npopt.distributed.base import Algorithm, Federated
from npopt.distributed.clock import Clock, Faults
from npopt.distributed.compressed import CompressedSGD
from npopt.distributed.compressors import QSGD, Compressor, Identity, RandK, Sign, TopK
from npopt.distributed.data_parallel import DataParallel, ring_sum
from npopt.distributed.dsgd import DSGD
from npopt.distributed.ef21 import EF21, EF21SGDM, ef21_rate
from npopt.distributed.extra import EXTRA, largest_rate
from npopt.distributed.fedavg import FedAvg
from npopt.distributed.fedvarp import FedVARP
from npopt.distributed.gpipe import GPipe
from npopt.distributed.gradient_tracking import GradientTracking
from npopt.distributed.graphs import Graph, complete, exponential, metropolis, ring, star, torus
from npopt.distributed.local_sgd import LocalSGD
from npopt.distributed.node import Node
from npopt.distributed.one_bit_adam import OneBitAdam
from npopt.distributed.pipedream_flush import PipeDreamFlush
from npopt.distributed.power_sgd import PowerSGD
from npopt.distributed.ranks import on_ranks
from npopt.distributed.scaffold import Scaffold
from npopt.distributed.simulation import History, simulate
from npopt.distributed.splits import at_random, by_label, dirichlet
from npopt.distributed.tensor_parallel import TensorParallel
from npopt.distributed.zero import ZeRO

__all__ = [
    "DSGD",
    "EF21",
    "EF21SGDM",
    "EXTRA",
    "QSGD",
    "Algorithm",
    "Clock",
    "CompressedSGD",
    "Compressor",
    "DataParallel",
    "Faults",
    "FedAvg",
    "FedVARP",
    "Federated",
    "GPipe",
    "GradientTracking",
    "Graph",
    "History",
    "Identity",
    "LocalSGD",
    "Node",
    "OneBitAdam",
    "PipeDreamFlush",
    "PowerSGD",
    "RandK",
    "Scaffold",
    "Sign",
    "TensorParallel",
    "TopK",
    "ZeRO",
    "at_random",
    "by_label",
    "complete",
    "dirichlet",
    "ef21_rate",
    "exponential",
    "largest_rate",
    "metropolis",
    "on_ranks",
    "ring",
    "ring_sum",
    "simulate",
    "star",
    "torus",
]
