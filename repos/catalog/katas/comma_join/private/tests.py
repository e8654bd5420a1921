def test_1(f):
    assert f(['a', 'b']) == 'a,b'


def test_2(f):
    assert f(['x']) == 'x'


def test_3(f):
    assert f(['red', 'green', 'blue']) == 'red,green,blue'


def test_4(f):
    assert f(['1', '2', '3']) == '1,2,3'
