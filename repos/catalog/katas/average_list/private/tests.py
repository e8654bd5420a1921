def test_1(f):
    assert abs(f([1, 2, 3]) - 2.0) < 1e-9


def test_2(f):
    assert abs(f([5]) - 5.0) < 1e-9


def test_3(f):
    assert abs(f([1, 2]) - 1.5) < 1e-9


def test_4(f):
    assert abs(f([-3, 3]) - 0.0) < 1e-9
