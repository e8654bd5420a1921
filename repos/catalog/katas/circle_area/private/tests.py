def test_1(f):
    assert abs(f(1) - 3.141592653589793) < 1e-9


def test_2(f):
    assert abs(f(0) - 0.0) < 1e-9


def test_3(f):
    assert abs(f(2) - 12.566370614359172) < 1e-9


def test_4(f):
    assert abs(f(10) - 314.1592653589793) < 1e-9
