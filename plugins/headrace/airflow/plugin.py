"""Airflow's plugin `headrace`: registers the page "Headrace", which `headrace.airflow.page` serves.

Airflow finds it by the package's entry point `airflow.plugins`.
"""

from airflow.plugins_manager import AirflowPlugin

from headrace.airflow.lazy_app import LazyApp
from headrace.airflow.links import HeadraceLink


class HeadracePlugin(AirflowPlugin):
    """The page, its JSON and its metrics at /headrace, its place in the navigation, a button at every task."""

    name = "headrace"
    fastapi_apps = [  # noqa: RUF012
        {"name": "headrace", "url_prefix": "/headrace", "app": LazyApp("headrace.airflow.page")}
    ]
    global_operator_extra_links = [HeadraceLink()]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Headrace",
            "href": "headrace/",  # relative: Airflow may live below a path of its own
            "destination": "nav",
            "url_route": "headrace",
            "icon": "headrace/static/icon.svg",
        }
    ]
