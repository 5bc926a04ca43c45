"""Attacks: functions from images to adversarial images, all with one call shape.

``defenses.attacks.autoattack`` is a module: ``autoattack.robust`` says which examples withstand
all of its attacks.
"""

from defenses.attacks.apgd import apgd, apgd_targeted
from defenses.attacks.fab import fab
from defenses.attacks.fgsm import fgsm
from defenses.attacks.pgd import pgd
from defenses.attacks.square import square

__all__ = ["apgd", "apgd_targeted", "fab", "fgsm", "pgd", "square"]
