"""The energy of a run: measured where codecarbon is installed and a country is set, without a word to the network."""

import importlib.util
import socket
import sys
import time

import pytest
from short_runs import train_short

from recipes.training import energy
from record.errors import UserError
from record.run_record import load_record

needs_codecarbon = pytest.mark.skipif(
    importlib.util.find_spec("codecarbon") is None,
    reason="codecarbon is not installed (pip install -r requirements-energy.txt)",
)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Poland is set, and every connection that is tried is noted."""
    tried, connect = [], socket.socket.connect
    monkeypatch.setenv(energy.COUNTRY, "POL")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: tried.append(address) or connect(self, address))
    return tried


def test_nothing_is_measured_unasked(monkeypatch):
    monkeypatch.delenv(energy.COUNTRY, raising=False)
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    assert energy.stop_meter(energy.start_meter()) is None


def test_what_lacks_is_said_before_training(monkeypatch):
    monkeypatch.setenv(energy.COUNTRY, "POL")
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-energy\.txt"):
        energy.start_meter()


@needs_codecarbon
def test_an_unknown_country_is_refused(monkeypatch):
    monkeypatch.setenv(energy.COUNTRY, "XYZ")
    with pytest.raises(UserError, match="XYZ is no country"):
        energy.start_meter()


@needs_codecarbon
def test_energy_follows_from_power_time_and_grid(asked, tmp_path):
    meter = energy.start_meter()
    time.sleep(1)
    found = energy.stop_meter(meter)
    assert found.kwh == pytest.approx(found.cpu_kwh + found.gpu_kwh + found.ram_kwh)
    # Between a laptop's 1 W and a server's 5 kW.
    assert 1 < found.kwh * 3600 * 1000 < 5000
    # Poland's grid emitted 662 g of CO2 per kWh (codecarbon 3.3, global_energy_mix.json, Our World in Data).
    assert found.co2_grams / found.kwh == pytest.approx(662, rel=0.05)
    assert (found.country, found.codecarbon) == ("POL", "3.3.2")
    assert asked == [] and list(tmp_path.iterdir()) == []


@needs_codecarbon
def test_a_run_records_its_energy_and_writes_no_file_of_codecarbon(monkeypatch, tmp_path):
    monkeypatch.setenv(energy.COUNTRY, "POL")
    record = load_record(train_short(tmp_path / "run", "--max_steps", "2", "--eval_strategy", "no",
                                     "--load_best_model_at_end", "false", "--save_strategy", "no"))  # fmt: skip
    assert 0 < record.energy.kwh < 0.1
    assert not list(tmp_path.rglob("emissions*"))
