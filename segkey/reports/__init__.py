"""Reports: results as tables, charts, pages and sentences; nothing here computes scores.

Each function takes results and returns what is shown.
"""

from segkey.reports.command_output import (
    KEY_SPACE_ADVICE,
    attack_sentence,
    attack_table,
    bench_table,
    describe_encryption,
    describe_plan,
    describe_prediction,
    describe_training,
    evaluation_table,
    files_table,
    inspection_table,
    key_space_table,
    prediction_table,
)
from segkey.reports.data_tables import class_table, describe_source
from segkey.reports.exports import export_document, export_table
from segkey.reports.locks import (
    folded_sentence,
    locked_table,
    whose_document,
    whose_sentence,
    whose_table,
)
from segkey.reports.networks import import_table, network_table
from segkey.reports.tables import Row, as_csv, as_json, as_latex, collect, demo_sentence, tables
from segkey.reports.text import visible
from segkey.reports.verdicts import by_required_access, suite_table, suite_verdict
from segkey.system.wording import in_bytes
