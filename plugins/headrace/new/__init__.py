"""`headrace new`: a project folder for declarations, dbt models and DAGs; and its dbt package of another version.

project/ is the folder as it is made: `dot-` at the start of a name stands for a dot, a last suffix .txt is dropped, so
that tools do not take a template for a file of this package. Links lead to the files of this repository's own dbt
project; the wheel has their contents.
"""

from headrace.new.scaffold import create as create
from headrace.new.scaffold import package_differs as package_differs
from headrace.new.scaffold import upgrade as upgrade
