def test_1(f):
    assert abs(f(1, 2) - 50.0) < 1e-9


def test_2(f):
    assert abs(f(1, 4) - 25.0) < 1e-9


def test_3(f):
    assert abs(f(5, 5) - 100.0) < 1e-9


def test_4(f):
    assert abs(f(0, 8) - 0.0) < 1e-9


def test_5(f):
    assert abs(f(3, 2) - 150.0) < 1e-9
