"""The electricity of a training run, where it is asked for. An extra: pip install -r requirements-energy.txt.

Set CODECARBON_COUNTRY_ISO_CODE (ISO 3166-1 alpha-3, say POL), and CODECARBON_REGION for a state of the USA or Canada.
Nothing is asked of the network, and without the variable nothing is measured.
"""

import os

from record.energy import Energy
from record.errors import UserError

COUNTRY = "CODECARBON_COUNTRY_ISO_CODE"
# codecarbon 3.3: the modes in which it reads the CPU's own counters. In all others it takes load and design power.
COUNTERS = ("intel_rapl", "intel_power_gadget", "windows_emi")


def start_meter():
    """A running `codecarbon.OfflineEmissionsTracker`; None where no country is set.

    Raises:
        `UserError`: codecarbon is not installed, or does not know the country.
    """
    country = os.environ.get(COUNTRY)
    if not country:
        return None
    try:
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.input import DataSource
    except ImportError:
        raise UserError(
            f"{COUNTRY} asks for the energy of the run: pip install -r requirements-energy.txt, or unset it"
        ) from None
    # For a country that it does not know codecarbon takes the world's mean without a word.
    if country not in DataSource().get_global_energy_mix_data():
        raise UserError(f"{COUNTRY}={country} is no country that codecarbon knows: three letters, such as POL")
    meter = OfflineEmissionsTracker(output_methods=[], log_level="critical")
    meter.start()
    return meter


def stop_meter(meter) -> Energy | None:
    """What the meter found since it was started; None without a meter."""
    if meter is None:
        return None
    meter.stop()
    data = meter.final_emissions_data
    return Energy(
        kwh=data.energy_consumed,
        cpu_kwh=data.cpu_energy,
        gpu_kwh=data.gpu_energy,
        ram_kwh=data.ram_energy,
        co2_grams=1000 * data.emissions,
        country=data.country_iso_code,
        region=data.region,
        hardware=data.gpu_model or data.cpu_model,
        cpu_measured=_counters(meter),
        codecarbon=data.codecarbon_version,
    )


def _counters(meter) -> bool:
    from codecarbon.external.hardware import CPU, AppleSiliconChip

    return any(
        isinstance(part, AppleSiliconChip) or (isinstance(part, CPU) and part._mode in COUNTERS)
        for part in meter._hardware
    )
