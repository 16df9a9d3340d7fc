import PagedCache

/// How a checkpoint stores the values of a weight; raw values equal `nb_weight_type` in CSIMD.
public enum WeightType: Int32, Hashable, Sendable {
  case f32 = 0
  case bf16 = 1
  case f16 = 2
  /// E4M3 codes with a float32 factor per block of 128 x 128 values (DeepSeek-V3's `weight_scale_inv`).
  case e4m3Block128 = 3

  /// Bytes of one value.
  public var size: Int {
    switch self {
    case .f32: 4
    case .bf16, .f16: 2
    case .e4m3Block128: 1
    }
  }
}

/// A weight as it lies in a checkpoint: [rows, columns], row-major. The memory must outlive everything loaded from it.
public struct WeightView {
  public let type: WeightType
  /// Output features (or vocabulary entries); 1 for a vector.
  public let rows: Int
  /// Input features.
  public let columns: Int
  public let bytes: UnsafeRawBufferPointer
  /// [ceil(rows / 128), ceil(columns / 128)] factors of `.e4m3Block128`, else empty.
  public let blockFactors: [Float]

  /// - Precondition: `bytes` holds exactly rows x columns values, and there is a factor for each of their blocks; readers of files
  ///   check that before.
  public init(type: WeightType, rows: Int, columns: Int, bytes: UnsafeRawBufferPointer, blockFactors: [Float] = []) {
    precondition(bytes.count == rows * columns * type.size)
    precondition(blockFactors.count == (type == .e4m3Block128 ? (rows + 127) / 128 * ((columns + 127) / 128) : 0))
    self.type = type
    self.rows = rows
    self.columns = columns
    self.bytes = bytes
    self.blockFactors = blockFactors
  }
}

/// The rotary embedding of a model: which frequencies rotate which pairs.
public struct RotaryEmbedding: Sendable {
  /// [pairs] radians per position.
  public let inverseFrequencies: [Float]
  /// Factor on cosine and sine (yarn's attention factor); 1 without.
  public let magnitude: Float
  /// Pairs are (2 i, 2 i + 1) instead of (i, i + pairs).
  public let interleaved: Bool

  public init(inverseFrequencies: [Float], magnitude: Float = 1, interleaved: Bool = false) {
    self.inverseFrequencies = inverseFrequencies
    self.magnitude = magnitude
    self.interleaved = interleaved
  }

  /// Values of a head that rotate.
  public var dimension: Int { inverseFrequencies.count * 2 }
}

/// An RMS norm: x / rms(x) * weight.
public struct RMSNorm<Vector> {
  public let weight: Vector
  public let epsilon: Float

  public init(weight: Vector, epsilon: Float) {
    self.weight = weight
    self.epsilon = epsilon
  }
}

/// The columns of an attention's projection: query heads, then key heads, then value heads.
public struct AttentionHeads<Vector> {
  public let dimension: Int
  public let queries: Range<Int>
  public let keys: Range<Int>
  public let values: Range<Int>
  /// Norms of each query and key head (Qwen3).
  public let queryNorm: RMSNorm<Vector>?
  public let keyNorm: RMSNorm<Vector>?

  public init(
    dimension: Int, queryHeadCount: Int, kvHeadCount: Int, queryNorm: RMSNorm<Vector>?, keyNorm: RMSNorm<Vector>?
  ) {
    self.dimension = dimension
    queries = 0..<queryHeadCount * dimension
    keys = queries.upperBound..<queries.upperBound + kvHeadCount * dimension
    values = keys.upperBound..<keys.upperBound + keys.count
    self.queryNorm = queryNorm
    self.keyNorm = keyNorm
  }
}

/// What a model is written in: batch-granular operations on arrays of one device.
///
/// `Activations` are float32 arrays [T, width] whose rows are the tokens of the current step. Every operation computes a row in an
/// order that doesn't depend on the other rows, so that a token's bits are the same in any batch.
public protocol Operators: AnyObject {
  /// Float32 [T, width]; T follows the step.
  associatedtype Activations: AnyObject
  /// A loaded [outputs, inputs] weight, possibly of several parts stacked along the outputs.
  associatedtype Matrix
  /// A loaded float32 vector.
  associatedtype Vector

  func makeActivations(width: Int) -> Activations

  /// Loads weights stacked along their outputs, all with the same number of inputs.
  func loadMatrix(_ parts: [WeightView]) throws -> Matrix
  /// Loads weights whose values must stay as they are: tables that `embed` looks rows up in, and factors of an attention's queries
  /// and outputs.
  func loadTable(_ parts: [WeightView]) throws -> Matrix
  /// Loads vectors, concatenated.
  func loadVector(_ parts: [WeightView]) throws -> Vector

  /// Starts a step: activations made by `makeActivations` take its number of rows, `rotary` its positions.
  func beginStep(_ batch: StepBatch, pool: PagePool, rotary: RotaryEmbedding)

  /// output[t] = row tokenIDs[t] of the table.
  func embed(_ table: Matrix, into output: Activations)

  /// output = x / rms(x) * weight, per row.
  func rmsNorm(_ x: Activations, weight: Vector, epsilon: Float, into output: Activations)

  /// RMS norm of each head of `headDimension` values in the columns, in place (Qwen3's q_norm and k_norm).
  func rmsNormHeads(_ x: Activations, columns: Range<Int>, headDimension: Int, weight: Vector, epsilon: Float)

  /// output = x * weight^T (+ bias), or output += with `accumulate` (a residual connection).
  func linear(_ x: Activations, _ weight: Matrix, bias: Vector?, accumulate: Bool, into output: Activations)

  /// output = norm(x) * weight^T (+ bias), then `rmsNormHeads` and `rotate` of its queries and keys and `store` of its keys and values,
  /// in one pass with the bits of all these one after the other.
  func projectHeads(
    _ x: Activations, norm: RMSNorm<Vector>, _ weight: Matrix, bias: Vector?, heads: AttentionHeads<Vector>, layer: Int,
    into output: Activations)

  /// output = silu(gate) * up, with [gate | up] = norm(x) * gateUp^T (+ bias) (arXiv 2002.05202, SwiGLU). Without a norm x is taken as
  /// it is.
  func gatedLinear(
    _ x: Activations, norm: RMSNorm<Vector>?, _ gateUp: Matrix, bias: Vector?, into output: Activations)

  /// Rotates the last `rotary.dimension` values of each head in the columns by the row's position.
  func rotate(_ x: Activations, columns: Range<Int>, headDimension: Int)

  /// Encodes keys and values (columns of x, all KV heads) and writes them to the rows' slots in the pool.
  func store(_ x: Activations, keys: Range<Int>, values: Range<Int>, layer: Int)

  /// Leaves the rows whose logits are wanted: they move to the top of two arrays, other arrays lose their contents, and the rest of the
  /// step, `logits` included, runs on those rows alone. For the last layer, after its `store`.
  func keepLogitsRows(of first: Activations, _ second: Activations)

  /// Causal attention over the pool; queries are columns of x, the result fills `output` from column 0.
  func attend(
    _ x: Activations, queries: Range<Int>, headCount: Int, layer: Int, softmaxScale: Float, into output: Activations)

  /// Norm and output head of the step's `logitsRows`, to host memory [logitsRows.count, vocabulary].
  func logits(
    _ x: Activations, norm: Vector, epsilon: Float, head: Matrix, into output: UnsafeMutableBufferPointer<Float>)
}
