"""The straggler tax taken apart into noise, skew, hardware and their interaction."""

from moevar.figures import NotCarried


def draw(study):
    raise NotCarried("The split of causes needs cells with even loads and with equal GPUs: study.causes = true.")
