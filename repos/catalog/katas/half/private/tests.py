def test_1(f):
    assert abs(f(10) - 5.0) < 1e-9


def test_2(f):
    assert abs(f(3) - 1.5) < 1e-9


def test_3(f):
    assert abs(f(0) - 0.0) < 1e-9


def test_4(f):
    assert abs(f(-8) - -4.0) < 1e-9


def test_5(f):
    assert abs(f(1) - 0.5) < 1e-9
