def test_1(f):
    assert abs(f(10, 2) - 5.0) < 1e-9


def test_2(f):
    assert abs(f(100, 1) - 100.0) < 1e-9


def test_3(f):
    assert abs(f(1, 4) - 0.25) < 1e-9


def test_4(f):
    assert abs(f(0, 3) - 0.0) < 1e-9
