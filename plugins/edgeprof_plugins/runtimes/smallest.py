"""The smallest models of formats that are not text, for ``edgeprof doctor``.

Each computes y = max(x, 0) of two numbers, except the language model, whose weights are all zero.
"""

import base64
import zlib

#: float32 [1, 2], as an .onnx file.
ONNX = base64.b64decode(
    "CAc6PgoMCgF4EgF5IgRSZWx1EgR0aW55WhMKAXgSDgoMCAESCAoCCAEKAggCYhMKAXkSDgoMCAESCAoCCAEKAggCQgQKABAN"
)


def _unpack(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


#: ``ONNX``, converted by mnnconvert 3.6.1.
MNN = _unpack(
    "eNpNUD0PgjAUvCpiQxwIwYTBwRgGFwifUhJX/4GDK0ScHBz133ul1fQlx7Xv43qPPYAdUkjyBiFirOAjYW7NzJ6sY4mrAM7Ek7cboWDCI1Kifqi6"
    "6O9d1jfdlDVTp7KhGqdsUGWtxqJq+6rV/QsitHOUw8fy27Kb170vIplfiuhF0ptxmdBfNOdrUVgPMaH3uFgN8dfymff4NSHwi2jW1lWj+tPciqOj"
    "d3BmjNeA3XpmzZMJaWsLh8GqtH8psLuttOP8lJfO3l+YpBNS"
)
#: torch.relu, exported by ExecuTorch 1.5.1 without a backend.
EXECUTORCH = _unpack(
    "eNqtUcFOwkAQnZaKK3KoSAgHDs2GgwdigvEiZ/0Db5Uo0jU2aQop26gxJH6Sn8DBgwc/wi+hvi1bslQ0MbHN2+nM7rx5+9ohoovL/gkCudTG2kSs"
    "EyMHUWVER8CpASfLMgfRos1H5Uzt5+9mvZN/tcDVJQ9Z25jTwk7X4L8CFsAb8A68gODDJrINTq/Er+a9LrNMza8DFWCSSqohjqSIB4NEROnqrJt3"
    "1dbza7rnXMPSOcO6j3227iGL6RsyPbNiaLBKmsya0n5T6IR/ymnaaVCDDvJpLD/lIF953i48q1ZzjVXNZWty28gZbrCnNRW8TTr8xuuavGD+hA73"
    "V96VP0z/V+XNGeD3e94zl09TwQdenEZRz+PjSSzFozQK92EUJCK+nk3FGGV/OB+id1nu57dpGMkwnh3LdBoJvsHFFRnfxvZv/X/RP9+qOwjHsjTW"
    "H/KfKGDCLjy4myQPoySgL9D5i3o="
)
#: keras.Sequential([Input((2,), 1), ReLU()]), saved by Keras 3.15.1 as .keras.
KERAS = _unpack(
    "eNrtWk9PE0EU322pNCgRExKFoCl7MB6w6bZCCSeMoDUQ2QAmJGjKtB3ahelu3T+FhpB4rBfjTT+C8USMBz6C8eRH8OZRvwHO7M60u1MWCMGEhPmR"
    "zTDz3ps38+a3b5uZ0RbifcOSj/FXrfrOl1n8H3kG8VOHDqgAB6S3bNPYU7ahBexiE1q2bhrKTErJpdXJtKpMpBSsBYs2aMIKac9mslMPVfVhLjOr"
    "Ts7kpmZyeWVfC7l6/+dHrB7HLvBzHbeUTWNTr1JHdbPiIkh68lwSB2UEbLtogLrXvALfuNBwdIA8mWeL2/cUpmCHFBwL6AYoeV06lgvJgJ1WA3om"
    "pzqbW8Wqmon0civC2yYygZPLKvtYbMGqbjvQghXWgeEihAV2DZBGs7QFy05RJ4FSH2UyuYw6nc+r+Vx2mpgj0MLxxbL1npGlqaxngM+NhussEiE3"
    "vhJwyrUiduxNdV2dSGVfB+beGTcZXQNYNmncBMgmAbJAteqtJmtg3naJutlwMAdwdKk8euZYcvaZLMPFlxExbl2OhSSSOtgtNgFyA4trwCpw9CZ+"
    "B5DpDSeTzpDx1ixo10xU8VtO6JasS8nVUaWok9XkFu1EYvlmgdlE9VA26w0dwYDqPvdWfvtYLh0qkkSeIZIAzApE6R2oV2uOna5NvivMPR0cGB3w"
    "1JNJqc/T6uKIgtgH60y+QUuZlm1afo6xdtmT3aHtt2j/vN7q8vw80T7iwPz8SvhlUhK4iijMP9ZIuUbrjE/fY2G9Jk56pPTzUZeXs+f0K0vxEH+H"
    "KH8f9If57/NXiuSvgOBvkL8sj7UTPN98aBfkd+XF0pwsxTpZvX077OeA1n+OhMeViof1CrReS1zN9WPfLT4ON2hmkaWENIyjRz7kpD4iy57FUCeG"
    "yVA8yQe33d+N8bMnS4uyRA04PYLuz1+/HuP40uLGe3hTvHMCAgICAgICAgICAgICApcNUfvk/P7MafvkybtSYLdB4KqB32dk+35/R8J6FiwiVwrs"
    "7/0n/jZG/fqHsbPxd2hc8Ffwt5e/B2NhPXbOc1H89ffJ5Q7vCqOM19KxPBaIygPHn5et0fPjDSmYB8R5mcDZ8gB7Lw9TPN98XOx5WTcPaPfCfnZp"
    "/VNKrNFJYN9/Pl7nPS8jJTsvI2df2oIcG45HX3RjeOt1ELr2xpvyF9e6pttS6Bobb8jfrekayn29N220hcQ1Io3jv6+4/H2f1P4B/4ALnA=="
)
#: A Llama of one layer and 32 tokens without a tokenizer; tests/profiler/launch/test_proof.py writes the same bytes.
GGUF = _unpack(
    "eNrt0U9v0zAcxvFs/NEkOGzAECAhwQVuEZwQt3LZXgHnyE1+TaM4dnGdFjiN98Pb4H2RrK5wtma5cPx+JNeS+zz1n15efr24lyTJo2RnPz8LcylG"
    "nNKpcvmy8pL71slJt/4gfK+1atTjG2GjmuvQw7DulClscxZX0rm2eZ3ltjX+frd4FO25C+TWePnuMy2m9Ms+k3QfzwcZaeZSFJUpo9SbbrwcpBYi"
    "RbawbqtcEQVn3Xg1CCrvxfjKmnQpqvh3uH68nkxm9aYPHnfj3UhYqx/iMmNdk7lmnclqXWlr+mf6/ef9p9NBa2NzNc/W1U/Z32r/Pt7WYrp1l5Zl"
    "o9PGFqJPwjF7xho5i7NZ905FupWqXPrj8GNJNMeehNm2ftX667OG5tHNRjjv/i+Z6zr90F/W3NW6Cq3zQWuxuLOUhOu8uL3V7pwTl7sK/ae3+9+m"
    "qm9Hq/WB6mlc/Tha3UxVP4+9Uqm8HCjP4vKXQ/v25XY1VVVj+xZ2a6Ly7NBT/UoAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAD+u78N9sm8"
)
