def test_1(f):
    assert abs(f(1, 2, 3) - 2.0) < 1e-9


def test_2(f):
    assert abs(f(0, 0, 0) - 0.0) < 1e-9


def test_3(f):
    assert abs(f(1, 1, 2) - 1.3333333333333333) < 1e-9


def test_4(f):
    assert abs(f(10, 20, 60) - 30.0) < 1e-9
