"""A small scored run, as fixtures."""

import pytest

from recipes.config import parse_recipe
from record.predictions import Predictions
from record.run_record import Batch, Data, Environment, Leakage, LossPoint, Model, Pin, Pins, Record, Training
from record.scores import Contract
from scoring.scores import score_predictions


@pytest.fixture
def predictions():
    return Predictions(
        prompt=["What is a bond?", "What is a share?"],
        reference=["A bond is a loan.", "A share is a part of a company."],
        schema=["", ""],
        seen=["exact", ""],
        base=["What is a bond?", ""],
        adapter=["A bond is a loan.", "A share is a part."],
        base_tokens=[[5, 6, 7], []],
        adapter_tokens=[[8, 9], [8, 9, 10]],
    )


@pytest.fixture
def record(predictions):
    contract = Contract(
        metric="rouge_score",
        metric_version="0.1.2",
        stemmer=True,
        sentences="newlines",
        max_new_tokens=3,
        num_beams=1,
        dtype="float32",
        batch_size=8,
        resamples=100,
        confidence=0.95,
        seed=1,
    )
    return Record(
        name="finance",
        recipe=parse_recipe(["--config", "recipes/finance.yaml"]).resolved,
        hub="https://huggingface.co",
        pins=Pins(
            base_model=Pin(kind="model", id="google/flan-t5-large", revision="a" * 40, license="apache-2.0"),
            dataset=Pin(kind="dataset", id="gbharti/finance-alpaca", revision="b" * 40),
        ),
        data=Data(
            loaded=22,
            dropped={"drop characters(output) >= 512": 2},
            train=17,
            validation=1,
            test=2,
            test_sha256="c" * 64,
        ),
        model=Model(trainable=9_437_184, total=792_587_264, memory_bytes=1_604_048_896, dtype="bfloat16"),
        batch=Batch(per_device=16, accumulation=4, processes=1),
        environment=Environment(
            python="3.11.7",
            platform="Linux x86_64",
            device="CPU x",
            threads=2,
            packages={"torch": "2.13.0"},
            code_commit="d" * 40,
            code_dirty=False,
        ),
        leakage=[Leakage(adapter=None, dataset="gbharti/finance-alpaca", training_rows=18, exact=1, near=0)],
        training=Training(
            history=[
                LossPoint(step=5, epoch=0.5, loss=3.0),
                LossPoint(step=10, epoch=1.0, loss=2.0),
                LossPoint(step=10, epoch=1.0, eval_loss=2.1),
                LossPoint(step=20, epoch=2.0, loss=1.5, eval_loss=1.75),
            ],
            steps=20,
            epochs=2.0,
            seed=2137,
            resumed_from=0,
            best_step=20,
            seconds=60.0,
            tokens_per_second=1234.5,
            peak_memory_bytes=10**9,
            adapter_sha256="e" * 64,
        ),
        contract=contract,
        scores=score_predictions(predictions, contract, 1.0, 2.0),
    )
