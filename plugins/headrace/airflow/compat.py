"""Names that Airflow 3.1 has elsewhere than later versions."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import AssetOrTimeSchedule as AssetOrTimeSchedule
    from airflow.sdk import CronTriggerTimetable as CronTriggerTimetable
    from airflow.sdk.exceptions import AirflowException as AirflowException
    from airflow.sdk.exceptions import AirflowFailException as AirflowFailException
    from airflow.sdk.exceptions import AirflowNotFoundException as AirflowNotFoundException
    from airflow.sdk.exceptions import AirflowSkipException as AirflowSkipException
else:

    def _find(name, *modules):
        for module in modules:
            try:
                return getattr(import_module(module), name)
            except (ImportError, AttributeError):
                continue
        raise ImportError(f"cannot import {name} from {' or '.join(modules)}")

    AirflowException = _find("AirflowException", "airflow.sdk.exceptions", "airflow.exceptions")
    AirflowFailException = _find("AirflowFailException", "airflow.sdk.exceptions", "airflow.exceptions")
    AirflowNotFoundException = _find("AirflowNotFoundException", "airflow.sdk.exceptions", "airflow.exceptions")
    AirflowSkipException = _find("AirflowSkipException", "airflow.sdk.exceptions", "airflow.exceptions")
    AssetOrTimeSchedule = _find("AssetOrTimeSchedule", "airflow.sdk", "airflow.timetables.assets")
    CronTriggerTimetable = _find("CronTriggerTimetable", "airflow.sdk", "airflow.timetables.trigger")
