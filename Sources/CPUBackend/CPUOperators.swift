import CSIMD
import KVQuantization
import Operators
import PagedCache
import Synchronization

/// `Operators` on the CPU: weights read in place from the mapped checkpoint, C kernels from CSIMD, pieces of work handed to a
/// pool of workers. Work is cut by rows and outputs, never inside a sum, so results don't depend on the thread count.
public final class CPUOperators: Operators {
  public typealias Activations = CPUActivations
  public typealias Matrix = CPUMatrix
  public typealias Vector = CPUVector

  public let attention: any AttentionBackend
  public let workers: WorkerPool
  let level: nb_level
  /// What matrices are converted to when they are loaded; nil keeps them as the checkpoint has them.
  public let weightType: CPUWeightType?
  /// What the encoders met since the start.
  public private(set) var encodeStatistics = EncodeStatistics()

  private var batch = StepBatch()
  /// What `keepLogitsRows` leaves of a step.
  private var logitsBatch = StepBatch()
  private var pool: PagePool?
  private var regions: [CacheRegion] = []
  /// Rows that `store` writes together.
  private var storeRuns: [Range<Int>] = []
  private var rotaryTable = RotaryTable()
  private var activations: [CPUActivations] = []
  private var workerStatistics: [nb_encode_statistics]
  private let logitsInput = [CPUActivations]()
  private var normed: CPUActivations?
  private var expertArrays: ExpertScratch?

  public init(
    attention: any AttentionBackend, workers: WorkerPool, weightType: CPUWeightType? = nil,
    level: nb_level = nb_level_active()
  ) {
    self.attention = attention
    self.workers = workers
    self.level = level
    self.weightType = weightType
    workerStatistics = Array(repeating: nb_encode_statistics(), count: workers.threadCount)
  }

  // MARK: Loading

  public func makeActivations(width: Int) -> CPUActivations {
    let result = CPUActivations(width: width)
    activations.append(result)
    return result
  }

  public func loadMatrix(_ parts: [WeightView]) throws -> CPUMatrix {
    let matrix = try CPUMatrix(parts)
    return weightType.map { matrix.converted(to: $0, level: level, workers: workers) } ?? matrix
  }

  public func loadTable(_ parts: [WeightView]) throws -> CPUMatrix { try CPUMatrix(parts) }

  public func loadVector(_ parts: [WeightView]) throws -> CPUVector {
    var values: [Float] = []
    for part in parts {
      guard let bytes = part.bytes.baseAddress else { throw CPUBackendError.emptyWeight }
      let count = part.rows * part.columns
      values += [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
        if let out = buffer.baseAddress {
          nb_weight_row(level, nb_weight_type(UInt32(part.type.rawValue)), bytes, Int64(count), 0, out)
        }
        initialized = count
      }
    }
    return CPUVector(values: values)
  }

  // MARK: Steps

  public func beginStep(_ batch: StepBatch, pool: PagePool, rotary: RotaryEmbedding) {
    self.batch = batch
    batch.groupRuns(into: &storeRuns)
    if self.pool !== pool {
      self.pool = pool
      regions = pool.regions
    }
    for array in activations { array.reserve(rows: batch.tokenCount) }
    rotaryTable.fill(positions: batch.positions, rotary: rotary)
  }

  var rowCount: Int { batch.tokenCount }

  public func embed(_ table: CPUMatrix, into output: CPUActivations) {
    forEachRow { row in
      let token = Int(self.batch.tokenIDs[row])
      table.withRows(token..<token + 1, level: self.level) { type, memory, _, range, _ in
        nb_weight_row(
          self.level, type, memory, Int64(table.inputs), Int64(range.lowerBound), output.row(row))
      }
    }
  }

  public func rmsNorm(_ x: CPUActivations, weight: CPUVector, epsilon: Float, into output: CPUActivations) {
    forEachRow { row in
      nb_rms_norm(self.level, x.row(row), weight.values, Int64(x.width), epsilon, output.row(row))
    }
  }

  public func rmsNormHeads(
    _ x: CPUActivations, columns: Range<Int>, headDimension: Int, weight: CPUVector, epsilon: Float
  ) {
    forEachRow { row in
      for column in stride(from: columns.lowerBound, to: columns.upperBound, by: headDimension) {
        let head = x.row(row) + column
        nb_rms_norm(self.level, head, weight.values, Int64(headDimension), epsilon, head)
      }
    }
  }

  public func linear(
    _ x: CPUActivations, _ weight: CPUMatrix, bias: CPUVector?, accumulate: Bool, into output: CPUActivations
  ) {
    multiply(
      x.base, rows: rowCount, stride: x.width, weight, bias: bias, accumulate: accumulate, into: output.base,
      outputStride: output.width)
  }

  public func rotate(_ x: CPUActivations, columns: Range<Int>, headDimension: Int) {
    let table = rotaryTable
    let unrotated = headDimension - 2 * table.pairs
    forEachRow { row in
      table.withRow(row) { cosines, sines in
        for column in stride(from: columns.lowerBound + unrotated, to: columns.upperBound, by: headDimension) {
          nb_rotate(
            self.level, x.row(row) + column, cosines, sines, Int64(table.pairs), table.interleaved ? 1 : 0)
        }
      }
    }
  }

  public func store(_ x: CPUActivations, keys: Range<Int>, values: Range<Int>, layer: Int) {
    guard let pool else { return }
    let regions = regions
    workerStatistics.withUnsafeMutableBufferPointer { statistics in
      // Each worker adds to a slot of its own; the slots are summed below.
      nonisolated(unsafe) let statistics = statistics
      forEachStoreRunOnWorkers { rows, worker in
        let (page, slot) = self.slot(ofRow: rows.lowerBound, pageSize: pool.layout.pageSize)
        let record = pool.record(page: page, layer: layer)
        let first = x.row(rows.lowerBound)
        var keyColumn = keys.lowerBound
        var valueColumn = values.lowerBound
        for region in regions {
          var target = nb_region(region, record: record)
          let isKey = region.kind == .key || region.kind == .latent
          nb_region_store_rows(
            self.level, &target, Int32(slot), Int32(rows.count), first + (isKey ? keyColumn : valueColumn),
            Int64(x.width),
            pool.decodeScale(layer: layer, kind: region.kind), &statistics[worker])
          if isKey { keyColumn += region.dimension } else { valueColumn += region.dimension }
        }
      }
    }
    for worker in workerStatistics.indices {
      encodeStatistics += EncodeStatistics(workerStatistics[worker])
      workerStatistics[worker] = nb_encode_statistics()
    }
  }

  public func keepLogitsRows(of first: CPUActivations, _ second: CPUActivations) {
    guard batch.logitsRows.count < batch.tokenCount else { return }
    first.keepRows(batch.logitsRows)
    second.keepRows(batch.logitsRows)
    rotaryTable.keepRows(batch.logitsRows)
    logitsBatch.assignLogitsRows(of: batch)
    batch = logitsBatch
  }

  /// Page and token slot of a row's own position.
  private func slot(ofRow row: Int, pageSize: Int) -> (page: Int, slot: Int) {
    let position = Int(batch.positions[row])
    let sequence = batch.sequence(ofRow: row)
    let page = batch.pageTables[Int(batch.pageTableOffsets[sequence]) + position / pageSize]
    return (Int(page), position % pageSize)
  }

  public func attend(
    _ x: CPUActivations, queries: Range<Int>, headCount: Int, layer: Int, softmaxScale: Float,
    into output: CPUActivations
  ) {
    guard let pool else { return }
    attention.attend(
      AttentionCall(
        queries: x.base + queries.lowerBound, queryStride: x.width, output: output.base, outputStride: output.width,
        queryHeadCount: headCount, layer: layer, softmaxScale: softmaxScale),
      batch: batch, pool: pool)
  }

  public func gatedSiLU(_ x: CPUActivations, into output: CPUActivations) {
    forEachRow { row in
      nb_silu_multiply(
        self.level, x.row(row), x.row(row) + output.width, Int64(output.width), output.row(row))
    }
  }

  public func logits(
    _ x: CPUActivations, norm: CPUVector, epsilon: Float, head: CPUMatrix,
    into output: UnsafeMutableBufferPointer<Float>
  ) {
    let count = batch.logitsRows.count
    guard count > 0, let out = output.baseAddress else { return }
    precondition(output.count >= count * head.outputs, "the logits buffer is smaller than rows x vocabulary")
    let input = normed ?? CPUActivations(width: x.width)
    normed = input
    input.reserve(rows: count)
    for index in 0..<count {
      nb_rms_norm(level, x.row(Int(batch.logitsRows[index])), norm.values, Int64(x.width), epsilon, input.row(index))
    }
    multiply(
      input.base, rows: count, stride: x.width, head, bias: nil, accumulate: false, into: out,
      outputStride: head.outputs)
  }

  /// The arrays of expert layers; layers of one shape share them.
  func expertScratch(experts: Int, inputs: Int, intermediate: Int, outputs: Int) -> ExpertScratch {
    if let arrays = expertArrays,
      arrays.fits(experts: experts, inputs: inputs, intermediate: intermediate, outputs: outputs)
    {
      return arrays
    }
    let arrays = ExpertScratch(experts: experts, inputs: inputs, intermediate: intermediate, outputs: outputs)
    expertArrays = arrays
    return arrays
  }

  // MARK: Pieces of work

  /// Outputs of a piece of a matrix product: enough work to outweigh the hand-out, few enough to balance two workers.
  private static let outputsPerPiece = 64
  private static let rowsPerPiece = 64

  /// x [rows, inputs] times the transposed weight, on the workers.
  func multiply(
    _ x: UnsafePointer<Float>, rows: Int, stride: Int, _ weight: CPUMatrix, bias: CPUVector?, accumulate: Bool,
    into output: UnsafeMutablePointer<Float>, outputStride: Int
  ) {
    // Many rows: wide pieces, so that the inputs are read from the cache less often. Few rows and a large matrix: wide pieces too, as
    // memory takes a while to come up to speed at the start of each.
    let outputsPerPiece =
      rows < 16
      ? min(max(weight.outputs / (workers.threadCount * 8) & ~7, Self.outputsPerPiece), 16 * Self.outputsPerPiece)
      : 4 * Self.outputsPerPiece
    let rowsPerPiece = rows < 2 * Self.rowsPerPiece ? max(rows, 1) : Self.rowsPerPiece
    let columns = (weight.outputs + outputsPerPiece - 1) / outputsPerPiece
    let rowPieces = (rows + rowsPerPiece - 1) / rowsPerPiece
    workers.run(columns * rowPieces) { piece, _ in
      let firstRow = piece / columns * rowsPerPiece
      let count = min(rowsPerPiece, rows - firstRow)
      let first = piece % columns * outputsPerPiece
      self.multiplyPiece(
        x + firstRow * stride, rows: count, stride: stride, weight,
        outputs: first..<min(first + outputsPerPiece, weight.outputs), bias: bias, accumulate: accumulate,
        into: output + firstRow * outputStride, outputStride: outputStride)
    }
  }

  /// Some outputs of a product, on the calling thread.
  func multiplyPiece(
    _ x: UnsafePointer<Float>, rows: Int, stride: Int, _ weight: CPUMatrix, outputs: Range<Int>, bias: CPUVector? = nil,
    accumulate: Bool = false, into output: UnsafeMutablePointer<Float>, outputStride: Int
  ) {
    weight.withRows(outputs, level: level) { type, memory, factors, range, first in
      // The kernel takes and gives output n of the memory at index n.
      let offset = first - range.lowerBound
      bias.withPointer(offset: offset) { bias in
        nb_linear(
          level, type, memory, Int64(weight.inputs), Int64(range.lowerBound), Int64(range.upperBound), factors, bias, x,
          Int64(stride), Int64(rows), output + offset, Int64(outputStride), accumulate ? 1 : 0)
      }
    }
  }

  /// Runs `body` for every row of the step: on the calling thread for few rows, else on the workers.
  func forEachRow(_ body: (Int) -> Void) {
    let rows = rowCount
    let piece = 8
    guard rows > piece else {
      for row in 0..<rows { body(row) }
      return
    }
    workers.run((rows + piece - 1) / piece) { index, _ in
      for row in index * piece..<min((index + 1) * piece, rows) { body(row) }
    }
  }

  private func forEachStoreRunOnWorkers(_ body: (_ rows: Range<Int>, _ worker: Int) -> Void) {
    let runs = storeRuns
    let rowsInPiece = 8
    guard rowCount > rowsInPiece else {
      for run in runs { body(run, 0) }
      return
    }
    let piece = max(1, rowsInPiece * runs.count / rowCount)
    workers.run((runs.count + piece - 1) / piece) { index, worker in
      for run in runs[index * piece..<min((index + 1) * piece, runs.count)] { body(run, worker) }
    }
  }
}

extension Optional where Wrapped == CPUVector {
  @inline(__always)
  fileprivate func withPointer(offset: Int, _ body: (UnsafePointer<Float>?) -> Void) {
    guard let vector = self else { return body(nil) }
    vector.values.withUnsafeBufferPointer { body($0.baseAddress.map { $0 + offset }) }
  }
}
