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
  private var storeRuns: [GroupRun] = []
  private(set) var rotaryTable = RotaryTable()
  private var activations: [CPUActivations] = []
  private var workerStatistics: [nb_encode_statistics]
  private var normed: CPUActivations?
  private var expertArrays: ExpertScratch?
  /// What products need besides their inputs and outputs.
  var workerScratch = WorkerScratch()
  var gateUpProducts = GrowingBuffer()
  /// [workers] the first of the rows that a worker has normed in a job.
  var normedRows: [Int]

  public init(
    attention: any AttentionBackend, workers: WorkerPool, weightType: CPUWeightType? = nil,
    level: nb_level = nb_level_active()
  ) {
    self.attention = attention
    self.workers = workers
    self.level = level
    self.weightType = weightType
    workerStatistics = Array(repeating: nb_encode_statistics(), count: workers.threadCount)
    normedRows = Array(repeating: -1, count: workers.threadCount)
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
    batch.groupRuns(pageSize: pool.layout.pageSize, into: &storeRuns)
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

  public func rotate(_ x: CPUActivations, columns: Range<Int>, headDimension: Int) {
    let unrotated = headDimension - 2 * rotaryTable.pairs
    rotaryTable.withRows { table in
      forEachRow { row in
        for column in stride(from: columns.lowerBound + unrotated, to: columns.upperBound, by: headDimension) {
          nb_rotate(
            self.level, x.row(row) + column, table.cosines(row), table.sines(row), Int64(table.pairs),
            table.interleaved ? 1 : 0)
        }
      }
    }
  }

  public func store(_ x: CPUActivations, keys: Range<Int>, values: Range<Int>, layer: Int) {
    withStores(layer: layer, keys: keys, values: values) { stores, statistics in
      forEachStoreRunOnWorkers { run, worker in
        stores.store(run, of: x, columns: 0..<x.width, level: self.level, &statistics[worker])
      }
    }
  }

  /// Calls `body` with what storing a layer's rows needs and one slot of statistics a worker.
  func withStores(
    layer: Int, keys: Range<Int>, values: Range<Int>,
    _ body: (_ stores: LayerStores, UnsafeMutablePointer<nb_encode_statistics>) -> Void
  ) {
    guard let pool else { return }
    storeRuns.withUnsafeBufferPointer { runs in
      regions.withUnsafeBufferPointer { regions in
        withStatistics { statistics in
          body(
            LayerStores(
              runs: runs, regions: regions, records: pool.record(page: 0, layer: layer), pageBytes: pool.pageBytes,
              scales: pool.scales[layer], keys: keys.lowerBound, values: values.lowerBound), statistics)
        }
      }
    }
  }

  /// Calls `body` with one slot of statistics a worker, and adds what it counts to `encodeStatistics`.
  private func withStatistics(_ body: (UnsafeMutablePointer<nb_encode_statistics>) -> Void) {
    workerStatistics.withUnsafeMutableBufferPointer { statistics in
      guard let base = statistics.baseAddress else { return }
      body(base)
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

  private func forEachStoreRunOnWorkers(_ body: (_ run: GroupRun, _ worker: Int) -> Void) {
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
