import CPUBackend
import CSIMD
import KVQuantization
import Operators
import PagedCache
import TestSupport
import Testing

/// Operators that do several things in one pass give the bits of those things one after the other.
@Suite struct FusedOperatorsTests {
  @Test(arguments: supportedLevels)
  func normAndRotationOfHeads(level: nb_level) {
    var random = SplitMix(seed: 3)
    for (width, pairs) in [(64, 32), (80, 40), (96, 48), (128, 64), (192, 96), (256, 128), (192, 32), (6, 2)] {
      let (count, epsilon) = (3, Float(1e-6))
      let (cosines, sines, weight) = (random.uniform(pairs), random.uniform(pairs), random.uniform(width))
      let heads = random.uniform(count * width)
      for (isNormed, interleaved) in [(true, Int32(0)), (true, 1), (false, 0), (false, 1)] {
        var expected = heads
        expected.withUnsafeMutableBufferPointer { expected in
          for start in stride(from: 0, to: count * width, by: width) {
            guard let head = expected.baseAddress.map({ $0 + start }) else { return }
            if isNormed { nb_rms_norm(level, head, weight, Int64(width), epsilon, head) }
            nb_rotate(level, head + width - 2 * pairs, cosines, sines, Int64(pairs), interleaved)
          }
        }
        var found = heads
        weight.withUnsafeBufferPointer {
          nb_norm_rotate_heads(
            level, &found, Int64(count), Int64(width), isNormed ? $0.baseAddress : nil, epsilon, cosines, sines,
            Int64(pairs), interleaved)
        }
        #expect(found.map(\.bitPattern) == expected.map(\.bitPattern), "\(width) \(pairs) \(isNormed) \(interleaved)")
      }
    }
  }

  /// One row, few, a piece that is short, and more than one piece of rows.
  private static let rowCounts = [1, 3, 17, 130]

  @Test(arguments: supportedLevels, [KVRecipe.bf16, .nvfp4])
  func projectionOfHeads(level: nb_level, recipe: KVRecipe) throws {
    // Heads that rotate as a whole, and others; with norms and without; as many heads as are in a piece, and more.
    for (dimension, pairs, isNormed, isInterleaved) in [
      (64, 32, true, false), (64, 32, false, false), (80, 40, true, false), (128, 32, true, true),
      (256, 128, false, false),
    ] {
      for rows in Self.rowCounts {
        let fixture = try OperatorsFixture(level, rows: rows, inputs: 40, recipe: recipe, dimension: dimension)
        let operators = fixture.operators
        let norm = RMSNorm(weight: try fixture.vector(40), epsilon: 1e-5)
        let heads = AttentionHeads(
          dimension: dimension, queryHeadCount: 5, kvHeadCount: 2,
          queryNorm: isNormed ? RMSNorm(weight: try fixture.vector(dimension), epsilon: 1e-6) : nil,
          keyNorm: isNormed ? RMSNorm(weight: try fixture.vector(dimension), epsilon: 1e-6) : nil)
        let width = heads.values.upperBound
        let weight = try fixture.matrix(outputs: width, inputs: 40)
        let bias = try fixture.vector(width)
        let (normed, output) = (operators.makeActivations(width: 40), operators.makeActivations(width: width))
        let rotary = RotaryEmbedding(
          inverseFrequencies: (0..<pairs).map { 1 / Float(1 + $0) }, interleaved: isInterleaved)

        func run(_ body: () -> Void) -> (values: [UInt32], records: [UInt8]) {
          fixture.begin(rotary)
          body()
          return (fixture.read(output), fixture.takeRecords())
        }
        let expected = run {
          operators.rmsNorm(fixture.input, weight: norm.weight, epsilon: norm.epsilon, into: normed)
          operators.linear(normed, weight, bias: bias, accumulate: false, into: output)
          for (columns, norm) in [(heads.queries, heads.queryNorm), (heads.keys, heads.keyNorm)] {
            guard let norm else { continue }
            operators.rmsNormHeads(
              output, columns: columns, headDimension: dimension, weight: norm.weight, epsilon: norm.epsilon)
          }
          operators.rotate(output, columns: 0..<heads.keys.upperBound, headDimension: dimension)
          operators.store(output, keys: heads.keys, values: heads.values, layer: 1)
        }
        let counts = operators.encodeStatistics
        let found = run {
          operators.projectHeads(
            fixture.input, norm: norm, weight, bias: bias, heads: heads, layer: 1, into: output)
        }
        #expect(found == expected, "\(rows) rows, dimension \(dimension)")
        #expect(counts.values == UInt64(rows * 4 * dimension))
        var twice = counts
        twice += counts
        #expect(operators.encodeStatistics == twice)
      }
    }
  }

  @Test(arguments: supportedLevels, [1, 32, 200, 344])
  func gatedProduct(level: nb_level, width: Int) throws {
    for rows in Self.rowCounts {
      let fixture = try OperatorsFixture(level, rows: rows, inputs: 40)
      let operators = fixture.operators
      let norm = RMSNorm(weight: try fixture.vector(40), epsilon: 1e-5)
      let weight = try fixture.matrix(outputs: 2 * width, inputs: 40)
      let bias = try fixture.vector(2 * width)
      let normed = operators.makeActivations(width: 40)
      let (gateUp, gated) = (operators.makeActivations(width: 2 * width), operators.makeActivations(width: width))
      fixture.begin(RotaryEmbedding(inverseFrequencies: [1]))
      for isNormed in [true, false] {
        if isNormed { operators.rmsNorm(fixture.input, weight: norm.weight, epsilon: norm.epsilon, into: normed) }
        operators.linear(isNormed ? normed : fixture.input, weight, bias: bias, accumulate: false, into: gateUp)
        let products = fixture.read(gateUp).map { Float(bitPattern: $0) }
        var expected = [Float](repeating: .nan, count: rows * width)
        for row in 0..<rows {
          let start = row * 2 * width
          let (gate, up) = (products[start..<start + width], products[start + width..<start + 2 * width])
          var values = [Float](repeating: .nan, count: width)
          nb_silu_multiply(level, Array(gate), Array(up), Int64(width), &values)
          expected.replaceSubrange(row * width..<(row + 1) * width, with: values)
        }
        operators.gatedLinear(fixture.input, norm: isNormed ? norm : nil, weight, bias: bias, into: gated)
        #expect(fixture.read(gated) == expected.map(\.bitPattern), "\(rows) rows")
      }
    }
  }
}

/// Operators of one level in a step over two sequences, the first of which begins inside a group of slots.
private final class OperatorsFixture {
  let operators: CPUOperators
  let input: CPUActivations
  private let pool: PagePool
  private let rows: Int
  private let values: [Float]
  private var random = SplitMix(seed: 5)
  private var weights: [UnsafeMutableRawBufferPointer] = []

  init(_ level: nb_level, rows: Int, inputs: Int, recipe: KVRecipe = .bf16, dimension: Int = 64) throws {
    operators = CPUOperators(attention: ReferenceAttention(), workers: WorkerPool(threadCount: 3), level: level)
    input = operators.makeActivations(width: inputs)
    let layout = try MHALayout(
      kvHeadCount: 2, headDimension: dimension, pageSize: 32, recipeK: recipe, recipeV: recipe)
    pool = try PagePool(layout: .mha(layout), layerCount: 2, pageCount: 8, scales: [.one, .one])
    self.rows = rows
    values = random.uniform(rows * inputs)
  }

  deinit {
    for weight in weights { weight.deallocate() }
  }

  /// Starts the step; arrays must have been made before.
  func begin(_ rotary: RotaryEmbedding) {
    let second = rows / 3
    var batch = StepBatch()
    batch.append(tokens: [Int32](repeating: 0, count: rows - second), start: 21, pages: [6, 1, 4, 2], logits: .last)
    if second > 0 {
      batch.append(tokens: [Int32](repeating: 0, count: second), start: 0, pages: [3, 7], logits: .last)
    }
    operators.beginStep(batch, pool: pool, rotary: rotary)
    values.withUnsafeBufferPointer { operators.write($0, into: input) }
  }

  func matrix(outputs: Int, inputs: Int) throws -> CPUMatrix {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: outputs * inputs * 4, alignment: 64)
    random.uniform(outputs * inputs).withUnsafeBytes { bytes.copyMemory(from: $0) }
    weights.append(bytes)
    return try operators.loadMatrix([
      WeightView(type: .f32, rows: outputs, columns: inputs, bytes: UnsafeRawBufferPointer(bytes))
    ])
  }

  func vector(_ count: Int) throws -> CPUVector {
    try random.uniform(count).withUnsafeBytes {
      try operators.loadVector([WeightView(type: .f32, rows: 1, columns: count, bytes: $0)])
    }
  }

  func read(_ x: CPUActivations) -> [UInt32] {
    var values = [Float](repeating: .nan, count: rows * x.width)
    values.withUnsafeMutableBufferPointer { operators.read(x, into: $0) }
    return values.map(\.bitPattern)
  }

  /// The pool's bytes, which become zeros.
  func takeRecords() -> [UInt8] {
    let bytes = UnsafeMutableRawBufferPointer(start: pool.base, count: pool.byteCount)
    defer { for index in bytes.indices { bytes[index] = 0 } }
    return Array(bytes)
  }
}
