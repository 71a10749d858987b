"""What the synthetic hospital plans to do: the codes that it uses and what each of them means.

This table is the source of the ground truth. It is written by hand from published code lists (ICD-10-PCS 2025
tables of CMS, OPS 2023 of BfArM with the sixth characters of OPS 2026, SNOMED CT GPS 2020-09) and never asks the
product's own mapping what a code means. Only codes whose class is beyond doubt are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["CODES", "LOCAL", "RIS", "SYSTEMS", "PlannedCode", "codings"]

RIS = "http://sandbox.example/CodeSystem/ris"

SYSTEMS: Mapping[str, str] = {
    "ops": "http://fhir.de/CodeSystem/bfarm/ops",
    "pcs": "http://www.cms.gov/Medicare/Coding/ICD10",
    "sct": "http://snomed.info/sct",
    "cpt": "http://www.ama-assn.org/go/cpt",
    "ris": RIS,
    "cat": "urn:oid:1.2.276.0.76.3.1.9999.1",
}
"""Short name in this module -> the URI that is written most often."""


class PlannedCode(NamedTuple):
    """One code that the hospital uses on purpose: short system name, code, planned category, note in own words.

    The category is ``none`` for a look-alike, ``add-on`` for what only refines a main code, and ``unmapped`` for a
    local code that nobody has mapped.
    """

    system: str
    code: str
    category: str
    note: str


LOCAL = (
    PlannedCode("ris", "RIS-4711", "ablation-mwa", "microwave ablation of a liver tumour"),
    PlannedCode("ris", "RIS-4712", "ablation-rfa", "radiofrequency ablation of a liver tumour"),
    PlannedCode("ris", "RIS-4713", "ablation-cryo", "cryoablation of a kidney tumour"),
    PlannedCode("ris", "RIS-4714", "ablation-mwa", "microwave ablation of a lung tumour"),
    PlannedCode("ris", "RIS-4720", "tace", "chemoembolisation of the liver"),
    PlannedCode("ris", "RIS-4721", "tare", "radioembolisation of the liver"),
    PlannedCode("ris", "RIS-4722", "planning", "mapping angiography before radioembolisation"),
    PlannedCode("ris", "RIS-4730", "cementoplasty", "vertebroplasty"),
    PlannedCode("ris", "RIS-4740", "biliary", "percutaneous bile duct drain"),
    PlannedCode("ris", "RIS-4741", "urinary", "percutaneous nephrostomy"),
    PlannedCode("ris", "RIS-4750", "biopsy", "CT-guided biopsy of the liver"),
    PlannedCode("ris", "RIS-5001", "add-on", "CT guidance"),
    PlannedCode("ris", "RIS-9001", "unmapped", "new key that nobody has mapped yet; here an ablation was done"),
)
"""Keys of the radiology department; config/sandbox-local-codes.csv maps all but the unmapped ones."""

CODES = (
    *LOCAL,
    PlannedCode("cat", "KH-4711", "unmapped", "key of an old catalogue; here an ablation was done"),
    # ablation of the liver
    PlannedCode("ops", "5-501.a3", "ablation-mwa", "liver, percutaneous"),
    PlannedCode("ops", "5-501.93", "ablation-rfa", "liver, percutaneous"),
    PlannedCode("ops", "5-501.b3", "ablation-cryo", "liver, percutaneous"),
    PlannedCode("ops", "5-501.73", "ablation-ire", "liver, percutaneous"),
    PlannedCode("ops", "5-501.63", "ablation-laser", "liver, percutaneous"),
    PlannedCode("ops", "5-501.43", "ablation-chemical", "liver, percutaneous, alcohol"),
    PlannedCode("ops", "5-501.83", "electrochemotherapy", "liver, percutaneous"),
    PlannedCode("pcs", "0F503ZZ", "ablation-other", "liver, percutaneous, energy not coded"),
    PlannedCode("pcs", "0F513ZZ", "ablation-other", "right lobe of the liver, percutaneous, energy not coded"),
    PlannedCode("pcs", "0F503ZF", "ablation-ire", "liver, percutaneous"),
    PlannedCode("sct", "609232008", "ablation-mwa", "liver, percutaneous"),
    PlannedCode("sct", "426830009", "ablation-rfa", "liver, percutaneous"),
    PlannedCode("sct", "609169001", "ablation-cryo", "tumour of the liver, percutaneous"),
    PlannedCode("sct", "716756004", "ablation-ire", "neoplasm of the liver, percutaneous"),
    PlannedCode("sct", "426713000", "ablation-chemical", "liver, percutaneous"),
    PlannedCode("cpt", "47382", "ablation-rfa", "liver tumour; only beside another coding"),
    # ablation elsewhere
    PlannedCode("ops", "5-552.52", "ablation-cryo", "kidney, percutaneous"),
    PlannedCode("ops", "5-552.55", "ablation-mwa", "kidney, percutaneous"),
    PlannedCode("sct", "609168009", "ablation-cryo", "neoplasm of the kidney, percutaneous"),
    PlannedCode("cpt", "50593", "ablation-cryo", "kidney tumour; only beside another coding"),
    PlannedCode("ops", "5-339.26", "ablation-mwa", "lung, percutaneous"),
    PlannedCode("ops", "5-339.25", "ablation-rfa", "lung, percutaneous"),
    PlannedCode("sct", "426987001", "ablation-rfa", "lung, percutaneous"),
    PlannedCode("pcs", "0B5C3ZZ", "ablation-other", "lung, percutaneous, energy not coded"),
    PlannedCode("ops", "5-839.h0", "ablation-rfa", "vertebra, percutaneous"),
    PlannedCode("sct", "444204007", "ablation-rfa", "neoplasm of bone, percutaneous"),
    PlannedCode("sct", "764738000", "ablation-ire", "neoplasm of the pancreas, percutaneous"),
    PlannedCode("pcs", "0F5G3ZF", "ablation-ire", "pancreas, percutaneous"),
    PlannedCode("sct", "708875000", "ablation-rfa", "adrenal gland, percutaneous"),
    PlannedCode("ops", "5-98h.2", "add-on", "one needle"),
    PlannedCode("ops", "5-98h.3", "add-on", "two needles"),
    # vascular treatment; one treatment may need several codes
    PlannedCode("ops", "8-836.ka", "bland-embolisation", "visceral arteries, particles; with other codes TACE or TARE"),
    PlannedCode("ops", "8-836.9a", "bland-embolisation", "visceral arteries, liquid; with a cytostatic TACE"),
    PlannedCode("ops", "8-836.ma", "bleeding-embolisation", "visceral arteries, coils; here always for a bleeding"),
    PlannedCode("ops", "8-836.kh", "bland-embolisation", "pelvic arteries, particles; here always for fibroids"),
    PlannedCode("ops", "8-836.mg", "pve", "portal vein, coils"),
    PlannedCode("ops", "8-836.mj", "none", "other abdominal or pelvic veins: varicocele"),
    PlannedCode("ops", "8-541.6", "ia-chemo", "cytostatic into an artery; with an embolisation TACE"),
    PlannedCode("ops", "8-549.01", "ia-chemo", "closed perfusion of the liver with filter"),
    PlannedCode("ops", "8-530.a5", "tare", "yttrium-90 microspheres"),
    PlannedCode("ops", "8-83b.10", "add-on", "drug-loaded particles"),
    PlannedCode("ops", "8-83b.11", "add-on", "radioactive particles"),
    PlannedCode("ops", "8-83b.25", "add-on", "oily contrast"),
    PlannedCode("ops", "8-539.01", "planning", "dosimetry of yttrium-90; on the treatment day part of it"),
    PlannedCode("ops", "3-604", "planning", "arteriography of the abdomen"),
    PlannedCode("sct", "764677008", "tare", "yttrium-90 microspheres, liver"),
    PlannedCode("sct", "314617008", "tace", "liver metastases"),
    PlannedCode("pcs", "04L33DZ", "bland-embolisation", "hepatic artery; with a cytostatic TACE"),
    PlannedCode("pcs", "04L93DZ", "bland-embolisation", "right renal artery"),
    PlannedCode("pcs", "06L83DZ", "pve", "portal vein"),
    PlannedCode("pcs", "3E06305", "ia-chemo", "cytostatic into a central artery; with an embolisation TACE"),
    PlannedCode("pcs", "XW053T9", "ia-chemo", "melphalan by hepatic delivery system"),
    PlannedCode("pcs", "027V3DZ", "venous-stent", "superior vena cava"),
    # supportive
    PlannedCode("ops", "5-839.90", "cementoplasty", "vertebroplasty, one level"),
    PlannedCode("ops", "5-839.91", "cementoplasty", "vertebroplasty, two levels"),
    PlannedCode("ops", "5-839.a0", "cementoplasty", "kyphoplasty, one level"),
    PlannedCode("pcs", "0QU03JZ", "cementoplasty", "cement in a lumbar vertebra"),
    PlannedCode("pcs", "0QS03ZZ", "add-on", "raising a lumbar vertebra; part of a kyphoplasty"),
    PlannedCode("sct", "431555002", "cementoplasty", "lumbar vertebroplasty"),
    PlannedCode("sct", "710129002", "neurolysis", "splanchnic nerve, fluoroscopy"),
    PlannedCode("pcs", "015M3ZZ", "neurolysis", "abdominal sympathetic nerve, percutaneous"),
    PlannedCode("pcs", "0F9930Z", "biliary", "drain in the common bile duct, percutaneous"),
    PlannedCode("ops", "5-514.g3", "biliary", "plastic stent, percutaneous"),
    PlannedCode("ops", "5-514.k3", "biliary", "exchange of a plastic stent, percutaneous"),
    PlannedCode("pcs", "0F2BX0Z", "biliary", "exchange of a bile duct drain"),
    PlannedCode("ops", "5-550.1", "urinary", "nephrostomy"),
    PlannedCode("pcs", "0T9030Z", "urinary", "nephrostomy, right"),
    PlannedCode("sct", "431410007", "urinary", "nephrostomy, fluoroscopy"),
    PlannedCode("pcs", "0T25X0Z", "urinary", "exchange of a nephrostomy"),
    PlannedCode("ops", "8-144.1", "effusion-drain", "lasting pleural drain"),
    PlannedCode("ops", "8-148.0", "effusion-drain", "drain in the peritoneal cavity"),
    PlannedCode("ops", "5-399.5", "venous-access", "port"),
    PlannedCode("pcs", "0JH60WZ", "venous-access", "port, chest"),
    PlannedCode("ops", "8-831.00", "none", "central line; here always intensive care"),
    PlannedCode("pcs", "02HV33Z", "venous-access", "central line; here always intensive care"),
    PlannedCode("ops", "5-509.00", "marker", "liver, percutaneous"),
    PlannedCode("ops", "1-442.0", "biopsy", "liver, image-guided"),
    PlannedCode("ops", "1-432.00", "biopsy", "lung, image-guided"),
    PlannedCode("pcs", "0FB03ZX", "biopsy", "liver, percutaneous"),
    # tumour ablation by a route that is not interventional radiology
    PlannedCode("ops", "5-501.90", "none", "ablation of the liver, open"),
    PlannedCode("ops", "5-501.a1", "none", "ablation of the liver, laparoscopic"),
    PlannedCode("ops", "5-552.70", "none", "ablation of the kidney, laparoscopic"),
    PlannedCode("pcs", "0F504ZZ", "none", "ablation of the liver, laparoscopic"),
    PlannedCode("sct", "448540000", "none", "ablation of the liver, laparoscopic"),
    # look-alikes
    PlannedCode("ops", "8-835.23", "none", "heart rhythm, left atrium"),
    PlannedCode("pcs", "02583ZZ", "none", "heart, conduction system"),
    PlannedCode("pcs", "02583ZF", "none", "heart, pulsed field"),
    PlannedCode("sct", "18286008", "none", "heart"),
    PlannedCode("pcs", "04LE3DT", "none", "uterine artery"),
    PlannedCode("ops", "5-681.65", "none", "fibroid, focused ultrasound"),
    PlannedCode("sct", "774009005", "none", "fibroid, focused ultrasound"),
    PlannedCode("ops", "5-513.f0", "none", "endoscopic bile duct stent"),
    PlannedCode("pcs", "0F798DZ", "none", "endoscopic bile duct stent"),
    PlannedCode("ops", "8-83c.51", "none", "renal denervation"),
    PlannedCode("pcs", "X051329", "none", "renal denervation"),
    PlannedCode("ops", "8-542.11", "none", "systemic chemotherapy"),
    PlannedCode("pcs", "3E04305", "none", "systemic chemotherapy"),
    PlannedCode("sct", "367336001", "none", "systemic chemotherapy"),
    PlannedCode("ops", "8-546.0", "none", "heated abdominal chemotherapy"),
    PlannedCode("ops", "5-431.20", "none", "endoscopic gastrostomy"),
    PlannedCode("sct", "235159007", "none", "endoscopic gastrostomy"),
    PlannedCode("ops", "5-830.2", "none", "facet joint denervation"),
    PlannedCode("sct", "449287000", "none", "medial branch radiofrequency"),
    PlannedCode("ops", "8-144.0", "none", "large chest tube"),
    PlannedCode("sct", "264957007", "none", "chest tube"),
    PlannedCode("ops", "5-601.0", "none", "transurethral resection of the prostate"),
    PlannedCode("ops", "5-385.a1", "none", "endovenous laser of varicose veins"),
    PlannedCode("sct", "233445008", "none", "portosystemic shunt"),
    PlannedCode("sct", "24998001", "none", "radioiodine"),
    PlannedCode("sct", "712539007", "none", "cyst of the liver"),
)

_KNOWN = frozenset((row.system, row.code) for row in CODES)


def codings(text: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Reads a plan's short notation: ``ops:5-501.a3 + ops:5-98h.2 & ris:RIS-5001``.

    ``+`` separates Procedures, ``&`` the codings of one Procedure.

    Returns:
        Per Procedure its (short system name, code) pairs.

    Raises:
        ValueError: A code is not in :data:`CODES`.
    """
    result = []
    for part in text.split(" + "):
        pairs = []
        for item in part.split(" & "):
            system, _, code = item.partition(":")
            if (system, code) not in _KNOWN:
                raise ValueError(f"the code {item} is not in the table of planned codes")
            pairs.append((system, code))
        result.append(tuple(pairs))
    return tuple(result)
