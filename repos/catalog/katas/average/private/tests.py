def test_1(f):
    assert abs(f(2, 4) - 3.0) < 1e-9


def test_2(f):
    assert abs(f(1, 2) - 1.5) < 1e-9


def test_3(f):
    assert abs(f(-5, 5) - 0.0) < 1e-9


def test_4(f):
    assert abs(f(10, 10) - 10.0) < 1e-9


def test_5(f):
    assert abs(f(0, 7) - 3.5) < 1e-9
