def test_1(f):
    assert abs(f(2, 3) - 3.0) < 1e-9


def test_2(f):
    assert abs(f(1, 1) - 0.5) < 1e-9


def test_3(f):
    assert abs(f(10, 5) - 25.0) < 1e-9


def test_4(f):
    assert abs(f(3, 7) - 10.5) < 1e-9


def test_5(f):
    assert abs(f(8, 8) - 32.0) < 1e-9
