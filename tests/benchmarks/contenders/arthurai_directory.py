"""arthurai's own upload of a directory of parquet files. Arguments: the platform's URL, the model, the directory."""

from __future__ import annotations

import sys

from arthurai import ArthurAI  # type: ignore[import-not-found]


def main(url: str, model: str, directory: str) -> None:
    arthur = ArthurAI(url=url, access_key="an-access-key", allow_insecure=True)
    answer, _ = arthur.get_model(model).send_bulk_inferences(directory_path=directory)
    print(answer["counts"])
    if answer["counts"]["failure"]:
        raise RuntimeError(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
