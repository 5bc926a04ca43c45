"""Attacks: functions from images to adversarial images, all with one call shape."""

from defenses.attacks.fgsm import fgsm
from defenses.attacks.pgd import pgd

__all__ = ["fgsm", "pgd"]
