"""What Airflow learns of the package from its entry point `apache_airflow_provider`: a type of connection, its form.

The shapes are those of Airflow's `provider.yaml.schema.json`. Every Airflow process reads this at its start, so
nothing is imported here.
"""

from __future__ import annotations

from typing import Any

from tidepost.definition.connection import ARTHUR


def get_provider_info() -> dict[str, Any]:
    """The provider, as Airflow asks for it."""
    return {
        "package-name": "tidepost",
        "name": "tidepost",
        "description": "Scheduled batch uploads of model inferences to monitoring platforms.",
        "integrations": [
            {"integration-name": "Arthur", "external-doc-url": "https://docs.arthur.ai", "tags": ["service"]}
        ],
        "hooks": [{"integration-name": "Arthur", "python-modules": ["tidepost.airflow.hooks"]}],
        "connection-types": [
            {
                "connection-type": ARTHUR,
                "hook-class-name": "tidepost.airflow.hooks.ArthurHook",
                "hook-name": "Arthur (tidepost)",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "extra"],
                    "relabeling": {"host": "Address", "password": "API key"},
                    "placeholders": {
                        "host": "https://arthur.example.com",
                        "port": "where the address names none",
                        "password": "an access key of the platform",
                        "organization": "00000000-0000-0000-0000-000000000000",
                        "ca_file": "/etc/ssl/certs/platform.pem",
                    },
                },
                "conn-fields": {
                    "organization": {
                        "label": "Organization",
                        "description": "Its id, where the key is good for several.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "ca_file": {
                        "label": "Certificates",
                        "description": "A PEM file of your own authority, as every worker finds it.",
                        "schema": {"type": ["string", "null"]},
                    },
                },
            }
        ],
    }
