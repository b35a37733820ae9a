"""`headrace infer`: the declaration and the models of a dataset, from sample records, a schema or a table.

Used by cli only. Types are chosen by the contract's own parsers, so a value that fits a type in the sample is accepted
by the declaration.
"""

from headrace.infer.inference import Inference as Inference
from headrace.infer.inference import infer as infer
from headrace.infer.options import InferOptions as InferOptions
