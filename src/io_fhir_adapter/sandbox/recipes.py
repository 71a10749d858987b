"""The planned sessions: interventional-oncology work, and the work that looks like it.

A recipe says what a session is, how often it happens in a year of a hospital of 1,500 patients, in which codes it
may be recorded, for which disease, and what must become of it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["IO_RECIPES", "LOOK_ALIKES", "PROFILES", "RECIPES", "Recipe"]

PROFILES: dict[str, tuple[int, tuple[str, ...]]] = {
    "liver": (22, ("C22.0",)),
    "liver-metastases": (22, ("C18.7", "C78.7")),
    "kidney": (9, ("C64",)),
    "lung": (10, ("C34.1",)),
    "lung-metastases": (6, ("C18.7", "C78.0")),
    "pancreas": (10, ("C25.0",)),
    "bile-duct": (7, ("C22.1",)),
    "bone-metastases": (14, ("C50.4", "C79.5")),
    "adrenal-metastases": (2, ("C34.1", "C79.7")),
    "bladder": (7, ("C67.2",)),
    "peritoneum": (6, ("C56", "C78.6")),
    "pleura": (5, ("C50.4", "C78.2")),
}
"""Tumour patients: name -> (share, ICD-10-GM codes of their Conditions; the last is the one that is treated)."""

_LIVER = ("liver", "liver-metastases")
_SPINE = ("bone-metastases",)
_STATED = ("reason-code", "reason-reference")
_ANY = ("reason-code", "reason-reference", "encounter", "condition")


@dataclass(frozen=True)
class Recipe:
    """One kind of planned session.

    Attributes:
        name: What it is, unique.
        category: Category code of what is done; ``none`` for what is not interventional oncology.
        decision: ``counted``, ``review`` or ``not-counted`` under the IASIOS defaults.
        reason: Reason code of that decision.
        per_year: Sessions a year in a hospital of 1,500 patients.
        variants: Ways to record it, in the notation of :func:`plans.codings`.
        profiles: Kinds of tumour patient that have it; empty for patients without any tumour.
        routes: How the indication is recorded: ``reason-code``, ``reason-reference``, ``encounter``, ``condition``
            (nothing but a Condition on record) or ``none`` (nothing at all).
        diseases: Stated diseases in place of the patient's tumour.
        twin: How the radiology department records the same session, if it does.
        status: Status of its Procedures.
    """

    name: str
    category: str
    decision: str
    reason: str
    per_year: int
    variants: tuple[str, ...]
    profiles: tuple[str, ...] = ()
    routes: tuple[str, ...] = _ANY
    diseases: tuple[str, ...] = ()
    twin: str = ""
    status: str = "completed"


def _counted(
    name: str,
    category: str,
    per_year: int,
    profiles: tuple[str, ...],
    *variants: str,
    routes: tuple[str, ...] = _ANY,
    twin: str = "",
) -> Recipe:
    return Recipe(name, category, "counted", "counted", per_year, variants, profiles, routes, twin=twin)


def _review(name: str, category: str, per_year: int, profiles: tuple[str, ...], *variants: str) -> Recipe:
    return Recipe(name, category, "review", "category-for-review", per_year, variants, profiles, _STATED)


def _uncounted(name: str, category: str, per_year: int, profiles: tuple[str, ...], *variants: str) -> Recipe:
    return Recipe(name, category, "not-counted", "category-not-counted", per_year, variants, profiles, _STATED)


IO_RECIPES = (
    _counted("microwave of the liver", "ablation-mwa", 26, _LIVER, "ops:5-501.a3 + ops:5-98h.2",
             "ops:5-501.a3 + ris:RIS-5001", "sct:609232008", "ris:RIS-4711", twin="ris:RIS-4711"),
    _counted("radiofrequency of the liver", "ablation-rfa", 14, _LIVER, "ops:5-501.93 + ops:5-98h.3",
             "sct:426830009 & cpt:47382", "ris:RIS-4712", twin="sct:426830009"),
    _counted("destruction in the liver", "ablation-other", 8, _LIVER, "pcs:0F503ZZ", "pcs:0F513ZZ"),
    _counted("cryoablation of the liver", "ablation-cryo", 3, _LIVER, "ops:5-501.b3", "sct:609169001"),
    _counted("electroporation of the liver", "ablation-ire", 4, _LIVER, "ops:5-501.73", "sct:716756004", "pcs:0F503ZF"),
    _counted("laser of the liver", "ablation-laser", 2, _LIVER, "ops:5-501.63"),
    _counted("alcohol in the liver", "ablation-chemical", 2, _LIVER, "ops:5-501.43", "sct:426713000"),
    _counted("electrochemotherapy of the liver", "electrochemotherapy", 2, _LIVER, "ops:5-501.83"),
    _counted("cryoablation of the kidney", "ablation-cryo", 10, ("kidney",), "ops:5-552.52 + ops:5-98h.3",
             "sct:609168009 & cpt:50593", "ris:RIS-4713", twin="ris:RIS-4713"),
    _counted("microwave of the kidney", "ablation-mwa", 4, ("kidney",), "ops:5-552.55"),
    _counted("microwave of the lung", "ablation-mwa", 8, ("lung", "lung-metastases"), "ops:5-339.26 + ops:5-98h.2",
             "ris:RIS-4714", twin="ris:RIS-4714"),
    _counted("radiofrequency of the lung", "ablation-rfa", 4, ("lung", "lung-metastases"), "ops:5-339.25",
             "sct:426987001"),
    _counted("destruction in the lung", "ablation-other", 2, ("lung",), "pcs:0B5C3ZZ"),
    _counted("radiofrequency of bone", "ablation-rfa", 5, _SPINE, "ops:5-839.h0", "sct:444204007", routes=_STATED),
    _counted("radiofrequency of a vertebra with cement", "ablation-rfa", 4, _SPINE, "ops:5-839.h0 + ops:5-839.90",
             routes=_STATED),
    _counted("microwave of the liver with biopsy", "ablation-mwa", 4, _LIVER, "ops:5-501.a3 + ops:1-442.0",
             routes=_STATED),
    _counted("electroporation of the pancreas", "ablation-ire", 3, ("pancreas",), "sct:764738000", "pcs:0F5G3ZF"),
    _counted("radiofrequency of the adrenal gland", "ablation-rfa", 1, ("adrenal-metastases",), "sct:708875000"),
    _counted("chemoembolisation", "tace", 26, _LIVER, "ops:8-836.9a + ops:8-541.6 + ops:8-83b.25",
             "ops:8-836.ka + ops:8-541.6", "pcs:04L33DZ + pcs:3E06305", "ris:RIS-4720", twin="ris:RIS-4720"),
    _counted("chemoembolisation of metastases", "tace", 3, ("liver-metastases",), "sct:314617008"),
    _counted("chemoembolisation with loaded particles", "deb-tace", 11, _LIVER,
             "ops:8-836.ka + ops:8-541.6 + ops:8-83b.10"),
    _counted("radioembolisation", "tare", 14, _LIVER, "ops:8-530.a5 + ops:8-836.ka + ops:8-83b.11 + ops:8-539.01",
             "ops:8-530.a5 + ops:8-83b.11", "sct:764677008", "ris:RIS-4721", twin="sct:764677008"),
    _counted("tumour embolisation in the liver", "bland-embolisation", 4, _LIVER, "ops:8-836.ka", "pcs:04L33DZ",
             routes=_STATED),
    _counted("tumour embolisation in the kidney", "bland-embolisation", 2, ("kidney",), "pcs:04L93DZ", routes=_STATED),
    _counted("portal vein embolisation", "pve", 6, ("bile-duct", "liver-metastases"), "ops:8-836.mg", "pcs:06L83DZ",
             routes=_STATED),
    _counted("arterial chemotherapy", "ia-chemo", 3, ("liver-metastases",), "ops:8-541.6", "pcs:3E06305",
             routes=_STATED),
    _counted("perfusion of the liver", "ia-chemo", 3, ("liver-metastases",), "ops:8-549.01", "pcs:XW053T9"),
    _counted("stent in the vena cava", "venous-stent", 5, ("lung",), "pcs:027V3DZ", routes=_STATED),
    _counted("vertebroplasty for metastases", "cementoplasty", 8, _SPINE, "ops:5-839.90", "ops:5-839.91",
             "sct:431555002", "ris:RIS-4730", routes=_STATED, twin="ris:RIS-4730"),
    _counted("kyphoplasty for metastases", "cementoplasty", 6, _SPINE, "ops:5-839.a0", "pcs:0QU03JZ + pcs:0QS03ZZ",
             routes=_STATED),
    _counted("neurolysis for cancer pain", "neurolysis", 6, ("pancreas",), "sct:710129002", "pcs:015M3ZZ",
             routes=_STATED),
    _review("bile duct drain for a tumour", "biliary", 11, ("pancreas", "bile-duct"), "ops:5-514.g3", "pcs:0F9930Z",
            "ris:RIS-4740"),
    _review("nephrostomy for a tumour", "urinary", 9, ("bladder",), "ops:5-550.1", "pcs:0T9030Z", "sct:431410007",
            "ris:RIS-4741"),
    _review("drain of a malignant pleural effusion", "effusion-drain", 4, ("pleura",), "ops:8-144.1"),
    _review("drain of malignant ascites", "effusion-drain", 4, ("peritoneum",), "ops:8-148.0"),
    Recipe("liver ablation without any reason", "ablation-mwa", "review", "indication-not-found", 4,
           ("ops:5-501.a3 + ops:5-98h.2", "sct:609232008"), (), ("none",)),
    Recipe("liver destruction without any reason", "ablation-other", "review", "indication-not-found", 3,
           ("pcs:0F503ZZ",), (), ("none",)),
    _uncounted("port", "venous-access", 12, ("liver-metastases", "pancreas", "bone-metastases"), "ops:5-399.5",
               "pcs:0JH60WZ"),
    _uncounted("biopsy of the liver", "biopsy", 6, _LIVER, "ops:1-442.0", "pcs:0FB03ZX", "ris:RIS-4750"),
    _uncounted("biopsy of the lung", "biopsy", 4, ("lung",), "ops:1-432.00"),
    _uncounted("marker in the liver", "marker", 2, _LIVER, "ops:5-509.00"),
)  # fmt: skip
"""Real interventional oncology: counted, for review, or of a category that never counts."""


def _alike(
    name: str,
    per_year: int,
    *variants: str,
    diseases: tuple[str, ...] = (),
    profiles: tuple[str, ...] = (),
    category: str = "none",
    reason: str = "look-alike",
    routes: tuple[str, ...] = _STATED,
    status: str = "completed",
) -> Recipe:
    return Recipe(
        name, category, "not-counted", reason, per_year, variants, profiles, routes, diseases, status=status
    )  # fmt: skip


_NONE = ("none",)
_OSTEOPOROSIS = ("M80.08", "M80.98", "M81.98")

LOOK_ALIKES = (
    _alike("ablation in the heart", 85, "ops:8-835.23", "pcs:02583ZZ", "pcs:02583ZF", "sct:18286008",
           diseases=("I48.0", "I48.1", "I47.1")),
    _alike("fibroid embolisation", 18, "ops:8-836.kh", diseases=("D25.1", "D25.9"), category="bland-embolisation",
           reason="other-disease"),
    _alike("fibroid embolisation, uterine artery coded", 8, "pcs:04LE3DT", diseases=("D25.1",)),
    _alike("focused ultrasound of fibroids", 6, "ops:5-681.65", "sct:774009005", diseases=("D25.1",)),
    _alike("cement for osteoporosis", 76, "ops:5-839.90", "ops:5-839.a0", "pcs:0QU03JZ + pcs:0QS03ZZ", "sct:431555002",
           diseases=_OSTEOPOROSIS, category="cementoplasty", reason="other-disease"),
    _alike("cement for osteoporosis in a tumour patient", 6, "ops:5-839.90", diseases=_OSTEOPOROSIS,
           profiles=("kidney", "bladder", "liver"), category="cementoplasty", reason="other-disease"),
    _alike("cement without any reason", 10, "ops:5-839.90", "pcs:0QU03JZ", category="cementoplasty",
           reason="no-tumour-indication", routes=_NONE),
    _alike("central line in intensive care", 45, "ops:8-831.00", diseases=("A41.9", "R57.2")),
    _alike("central line in intensive care, tip coded", 45, "pcs:02HV33Z", diseases=("A41.9", "R57.2"),
           category="venous-access", reason="category-not-counted"),
    _alike("endoscopic bile duct stent", 56, "ops:5-513.f0", "pcs:0F798DZ", diseases=("K80.5", "K83.1"),
           reason="not-percutaneous"),
    _alike("endoscopic bile duct stent for a tumour", 8, "ops:5-513.f0", profiles=("pancreas", "bile-duct"),
           reason="not-percutaneous"),
    _alike("laparoscopic or open ablation in the liver", 14, "ops:5-501.90", "ops:5-501.a1", "pcs:0F504ZZ",
           "sct:448540000", profiles=_LIVER, reason="not-percutaneous"),
    _alike("laparoscopic ablation in the kidney", 5, "ops:5-552.70", profiles=("kidney",),
           reason="not-percutaneous"),
    _alike("mapping before radioembolisation", 16, "ops:3-604", "ris:RIS-4722", profiles=_LIVER, category="planning",
           reason="planning-only"),
    _alike("renal denervation", 12, "ops:8-83c.51", "pcs:X051329", diseases=("I10.00", "I15.0")),
    _alike("systemic chemotherapy", 100, "ops:8-542.11", "pcs:3E04305", "sct:367336001",
           profiles=("liver-metastases", "pancreas", "lung", "bone-metastases", "bladder", "peritoneum", "pleura")),
    _alike("varicocele", 18, "ops:8-836.mj", diseases=("I86.1",)),
    _alike("embolisation of a bleeding", 36, "ops:8-836.ma", diseases=("K92.2", "K26.4"),
           category="bleeding-embolisation", reason="other-disease"),
    _alike("exchange of a bile duct drain", 14, "ops:5-514.k3", "pcs:0F2BX0Z", profiles=("pancreas", "bile-duct"),
           category="biliary", reason="revision-only"),
    _alike("exchange of a nephrostomy", 12, "pcs:0T25X0Z", profiles=("bladder",), category="urinary",
           reason="revision-only"),
    _alike("endoscopic gastrostomy", 28, "ops:5-431.20", "sct:235159007", diseases=("R13.9", "I69.3"),
           reason="not-percutaneous"),
    _alike("denervation of facet joints", 28, "ops:5-830.2", "sct:449287000", diseases=("M47.86", "M54.5")),
    _alike("ordinary chest tube", 28, "ops:8-144.0", "sct:264957007", diseases=("J93.1", "J86.9")),
    _alike("resection of the prostate", 18, "ops:5-601.0", diseases=("N40",)),
    _alike("laser of varicose veins", 14, "ops:5-385.a1", diseases=("I83.9",)),
    _alike("portosystemic shunt", 8, "sct:233445008", diseases=("K74.6",)),
    _alike("nephrostomy for a stone", 22, "ops:5-550.1", "pcs:0T9030Z", diseases=("N20.1", "N20.0"),
           category="urinary", reason="other-disease"),
    _alike("bile duct drain for a stone", 10, "pcs:0F9930Z", diseases=("K80.5",), category="biliary",
           reason="other-disease"),
    _alike("heated abdominal chemotherapy", 4, "ops:8-546.0", profiles=("peritoneum",)),
    _alike("radioiodine", 10, "sct:24998001", diseases=("E05.0",)),
    _alike("cyst of the liver", 3, "sct:712539007", diseases=("K76.8",)),
    _alike("needle count and guidance alone", 3, "ops:5-98h.2 + ris:RIS-5001", profiles=_LIVER,
           reason="add-on-only"),
    _alike("ablation under a key nobody mapped", 3, "ris:RIS-9001", profiles=_LIVER, reason="no-io-code"),
    _alike("ablation under a key of an unknown catalogue", 3, "cat:KH-4711", profiles=_LIVER, reason="unmapped"),
    _alike("ablation that was not done", 4, "ops:5-501.a3", profiles=_LIVER, category="ablation-mwa",
           reason="not-completed", status="not-done"),
    _alike("chemoembolisation in progress", 3, "ops:8-836.9a + ops:8-541.6", profiles=_LIVER, category="tace",
           reason="not-completed", status="in-progress"),
    _alike("ablation in preparation", 3, "sct:609232008", profiles=_LIVER, category="ablation-mwa",
           reason="not-completed", status="preparation"),
    _alike("ablation entered in error", 4, "ops:5-501.93", profiles=_LIVER, category="ablation-rfa",
           reason="entered-in-error", status="entered-in-error"),
)  # fmt: skip
"""Work that looks like interventional oncology in the record and does not count."""

RECIPES = IO_RECIPES + LOOK_ALIKES
