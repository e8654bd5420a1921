def test_1(f):
    assert abs(f(6, 3) - 2.0) < 1e-9


def test_2(f):
    assert abs(f(1, 4) - 0.25) < 1e-9


def test_3(f):
    assert abs(f(-9, 2) - -4.5) < 1e-9


def test_4(f):
    assert abs(f(0, 5) - 0.0) < 1e-9


def test_5(f):
    assert abs(f(7, 7) - 1.0) < 1e-9
